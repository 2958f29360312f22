"""Records by index: one store for each split of a dataset, whatever its format."""
