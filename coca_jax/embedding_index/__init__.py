"""Embeddings of images, kept on a disk and searched exactly."""
