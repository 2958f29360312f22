"""The embedded data set: real handwriting in small coloured scenes, with its language."""
