"""The one exception meant for people.

A `CocaError` is one sentence: what is wrong, where, and what to do. The command lines print it without a
traceback and leave with status 2 (`cli.app.run`); anything else that escapes is a bug and keeps its traceback.
"""


class CocaError(Exception):
    """An error that the user can mend; its message is one sentence that tells how."""


class DataError(CocaError):
    """Training data that cannot be used: a run saves its state before it passes this on."""
