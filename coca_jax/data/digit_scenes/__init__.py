"""The embedded dataset: real handwriting in small coloured scenes, with its language."""
