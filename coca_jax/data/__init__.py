"""Data: records reached by index, pictures, captions, vocabularies, and batches as a function of the step.

Only `tasks.py` uses seqio, and only it and the stores of examples (`example_records.py`, `tfds_records.py`) use tensorflow;
importing this package imports neither.
"""
