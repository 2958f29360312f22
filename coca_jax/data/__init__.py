"""Training data: records, images, text, and the input pipeline."""
