"""Data: records reached by index, pictures, captions, vocabularies, and batches as a function of the step.

Only `tasks.py` and `pipeline.py` use tensorflow and seqio; importing this package imports neither.
"""
