"""Data: records reached by index, pictures, captions, vocabularies, and batches as a function of the step.

Only `tasks.py` and `pipeline.py` import tensorflow and seqio; importing this package imports neither.
"""
