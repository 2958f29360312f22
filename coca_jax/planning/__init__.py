"""The cost of a training step on machines that need not be here: memory, compute, communication. For `coca_jax.plan`."""
