"""Captions and answers from a CoCa: greedy, sampled or by beam search, in one compiled loop with a cache."""

from coca_jax.generation.likelihood import log_likelihoods
from coca_jax.generation.loop import generate, greedy
from coca_jax.generation.options import GenerationOptions

__all__ = ["GenerationOptions", "generate", "greedy", "log_likelihoods"]
