"""A restored model: embed, classify, caption, search."""
