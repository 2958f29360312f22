"""One loop for pretraining and for every adaptation; see `loop.py` for the order of things."""
