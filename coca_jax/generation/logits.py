"""From the model's logits to those that a token is chosen by, and the choice by chance."""

import jax
import jax.numpy as jnp

from coca_jax.generation.options import GenerationOptions


def repetition_penalized(logits_BKV: jax.Array, tokens_BKT: jax.Array, penalty: float) -> jax.Array:
    """Logits with those of the tokens so far penalised; see `GenerationOptions.repetition_penalty`.

    Args:
      tokens_BKT: the generated tokens; pads where none are yet, whose logit may be changed too.
    """
    if penalty == 1:
        return logits_BKV
    found_BKT = jnp.take_along_axis(logits_BKV, tokens_BKT, axis=-1)
    found_BKT = jnp.where(found_BKT > 0, found_BKT / penalty, found_BKT * penalty)
    # A token that was generated twice is written twice, with the same value.
    return jnp.put_along_axis(logits_BKV, tokens_BKT, found_BKT, axis=-1, inplace=False)


def allowed(logits_BKV: jax.Array, never: jax.Array, eos_id: int, may_end: jax.Array) -> jax.Array:
    """Logits with -inf for the ids of `never`, and for EOS unless `may_end` (bool, scalar)."""
    logits_BKV = logits_BKV.at[..., never].set(-jnp.inf)
    return logits_BKV.at[..., eos_id].set(jnp.where(may_end, logits_BKV[..., eos_id], -jnp.inf))


def sample(key: jax.Array, logits_V: jax.Array, options: GenerationOptions) -> jax.Array:
    """A token id, drawn as `options` say: temperature, top_k, top_p, in this order. Ties: the lower id."""
    logits_V = (logits_V - jnp.max(logits_V)) / options.temperature  # no overflow, however low the temperature
    if not options.top_k and options.top_p == 1:
        return jax.random.categorical(key, logits_V).astype(jnp.int32)
    sorted_logits, ids = jax.lax.top_k(logits_V, options.top_k or logits_V.size)
    if options.top_p < 1:
        probabilities = jax.nn.softmax(sorted_logits)
        before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(probabilities)[:-1]])  # of all more likely tokens together
        sorted_logits = jnp.where(before < options.top_p, sorted_logits, -jnp.inf)
    return ids[jax.random.categorical(key, sorted_logits)].astype(jnp.int32)
