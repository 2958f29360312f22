"""The commands of `python -m coca_jax.tools`, one module each: `define` adds its flags and gives what runs it."""
