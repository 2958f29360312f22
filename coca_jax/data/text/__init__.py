"""Vocabularies, captions and the names of classes."""
