"""Batches as a function of the step: order, mixture, read-ahead, examples."""
