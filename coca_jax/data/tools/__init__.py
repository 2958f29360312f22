"""The commands of `python -m coca_jax.data`, one module each: `define` adds its flags and gives what runs it."""
