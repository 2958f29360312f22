"""Configs that several files of configs/ share."""
