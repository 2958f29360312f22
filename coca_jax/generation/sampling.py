"""From the model's logits to a token: repetition penalty and sampling.

Sources: repetition penalty, CTRL (arXiv 1909.05858, §4.1); top-k, Fan et al. (arXiv 1805.04833, §5.4); top-p, nucleus
sampling (arXiv 1904.09751, §3.1).
"""

import jax
import jax.numpy as jnp

from coca_jax.generation.options import GenerationOptions


def penalize_repetition(logits_BKV: jax.Array, tokens_BKT: jax.Array, penalty: float) -> jax.Array:
    """Logits with those of the generated tokens penalised; the pads after them may change too."""
    if penalty == 1:
        return logits_BKV
    earlier_BKT = jnp.take_along_axis(logits_BKV, tokens_BKT, axis=-1)
    earlier_BKT = jnp.where(earlier_BKT > 0, earlier_BKT / penalty, earlier_BKT * penalty)
    # A token that was generated twice is written twice, with the same value.
    return jnp.put_along_axis(logits_BKV, tokens_BKT, earlier_BKT, axis=-1, inplace=False)


def sample(key: jax.Array, logits_V: jax.Array, options: GenerationOptions) -> jax.Array:
    """A random token id; temperature, top_k and top_p are applied in this order. Ties: the lower id."""
    logits_V = (logits_V - jnp.max(logits_V)) / options.temperature  # no overflow, however low the temperature
    if not options.top_k and options.top_p == 1:
        return jax.random.categorical(key, logits_V).astype(jnp.int32)
    sorted_logits, ids = jax.lax.top_k(logits_V, options.top_k or logits_V.size)
    if options.top_p < 1:
        probabilities = jax.nn.softmax(sorted_logits)
        preceding = jnp.concatenate([jnp.zeros(1), jnp.cumsum(probabilities)[:-1]])  # mass of all likelier tokens
        sorted_logits = jnp.where(preceding < options.top_p, sorted_logits, -jnp.inf)
    return ids[jax.random.categorical(key, sorted_logits)].astype(jnp.int32)
