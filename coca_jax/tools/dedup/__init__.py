"""Training images that evaluation datasets show, too."""

from coca_jax.tools.dedup.command import define

__all__ = ["define"]
