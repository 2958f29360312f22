"""The CoCa model, the only package that imports flax.linen; `coca.py` is its interface to the rest of the project."""
