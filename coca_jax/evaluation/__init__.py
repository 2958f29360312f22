"""Evaluations of a trained model: predictions, pure metrics of them, and a page to look at."""
