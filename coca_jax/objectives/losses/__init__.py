"""Losses: pure functions of float32 arrays; the letters of their shapes stand in `models/layers.py`."""
