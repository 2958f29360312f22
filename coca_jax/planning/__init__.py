"""What a step of training costs on machines that are not here: memory, compute, communication. For `coca_jax.plan`."""
