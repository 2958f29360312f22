"""One loop for pretraining and for every adaptation; `loop.py` lists the order of its operations."""
