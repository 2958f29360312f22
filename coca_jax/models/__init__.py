"""The CoCa model. The only package that imports flax.linen; see `coca.py` for what the rest of the project uses."""
