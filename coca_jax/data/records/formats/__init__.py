"""One file for each format in which a dataset is stored."""
