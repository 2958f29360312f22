"""Pure functions from predictions and ground truth to figures."""
