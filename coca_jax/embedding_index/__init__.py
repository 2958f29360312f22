"""Embeddings of pictures, kept on a disk and searched exactly."""
