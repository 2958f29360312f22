"""Caption generation: one compiled loop over cached keys and values.

Image tokens are pooled, and their keys and values projected, once; each further step runs one token through both
decoder halves. The loop ends early when every caption has its EOS.
"""

from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.models.coca import Coca, empty_cache


def greedy(
    model: Coca, params: Any, images: jax.Array, *, bos_id: int, eos_id: int, pad_id: int
) -> jax.Array:
    """The most likely next token at each position, until EOS.

    Args:
      model: with the captioning branch.
      params: its parameters.
      images: uint8 or float [B, S, S, 3], or precomputed tokens [B, N, D].
      bos_id, eos_id, pad_id: the vocabulary's.

    Returns:
      int32 [B, L]: BOS, tokens, EOS, pads; without EOS where the caption fills all `model.text.length` positions.
    """
    length = model.config.text.length
    batch = images.shape[0]
    variables = {"params": params}
    pooled = model.apply(variables, images, method="encode_image")
    ids_BL = jnp.full((batch, length), pad_id, jnp.int32).at[:, 0].set(bos_id)
    not_text = jnp.array([bos_id, pad_id])  # BOS and pads are never captions' tokens

    def step(ids_BL, ended_B, index, cache, tokens_BQD):
        last_B1 = jax.lax.dynamic_slice_in_dim(ids_BL, index, 1, axis=1)
        logits, cache = model.apply(variables, last_B1, index, cache, tokens_BQD, method="extend")
        next_B = jnp.argmax(logits[:, 0].at[:, not_text].set(-jnp.inf), axis=-1).astype(jnp.int32)
        next_B = jnp.where(ended_B, pad_id, next_B)
        ids_BL = jax.lax.dynamic_update_slice_in_dim(ids_BL, next_B[:, None], index + 1, axis=1)
        return ids_BL, ended_B | (next_B == eos_id), index + 1, cache

    # The first step has image tokens, the later ones their cached keys and values: two traces, one loop.
    cache = empty_cache(model.config, batch, length)
    state = step(ids_BL, jnp.zeros(batch, bool), jnp.zeros((), jnp.int32), cache, pooled.tokens_BQD)
    unfinished = lambda state: (state[2] < length - 1) & ~jnp.all(state[1])
    return jax.lax.while_loop(unfinished, lambda state: step(*state, None), state)[0]
