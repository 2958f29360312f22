"""Captions and answers from a CoCa: greedy, sampled or by beam search, in one compiled loop with a cache."""

from coca_jax.generation.likelihood import log_likelihoods
from coca_jax.generation.loop import generate
from coca_jax.generation.options import GREEDY, GenerationOptions

__all__ = ["GREEDY", "GenerationOptions", "generate", "log_likelihoods"]
