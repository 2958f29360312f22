"""The one exception meant for people.

A `CocaError` is one sentence: what is wrong, where, and what to do. The command lines print it without a
traceback and leave with status 2 (`run_main`); anything else that escapes is a bug and keeps its traceback.
"""


class CocaError(Exception):
    """Something that a person can put right; its message is one sentence that says how."""


class DataError(CocaError):
    """The training data is at fault: a run saves its state before it passes this on."""
