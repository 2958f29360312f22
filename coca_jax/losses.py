"""Contrastive and captioning losses: pure functions of arrays, float32.

Letters: N global batch, E embedding, B batch, L text length, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp


def contrastive_loss(image_NE: jax.Array, text_NE: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Symmetric image-text cross-entropy over the global batch (paper Eq. 2, averaged over its two directions).

    The paper prints a sum of two sums over N; Google's public code divides by 2N, as here (docs/decisions.md).

    Args:
      image_NE, text_NE: L2-normalised, float32; row i of one belongs to row i of the other.
      temperature: scalar that divides the similarities.

    Returns:
      The scalar loss, and the share of images whose own text is the most similar one.
    """
    logits_NN = jnp.dot(image_NE, text_NE.T, precision="highest") / temperature
    own_N = jnp.diagonal(logits_NN)
    image_to_text_N = jax.nn.logsumexp(logits_NN, axis=1) - own_N
    text_to_image_N = jax.nn.logsumexp(logits_NN, axis=0) - own_N
    accuracy = jnp.mean(own_N >= jnp.max(logits_NN, axis=1))
    return (jnp.mean(image_to_text_N) + jnp.mean(text_to_image_N)) / 2, accuracy


def next_tokens(ids_BL: jax.Array, valid_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels and their mask: at position t the token t + 1, where that is not a pad. EOS is a label once, BOS never."""
    shift = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
    return shift(ids_BL), shift(valid_BL)


def captioning_loss(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    bias_V: jax.Array,
    labels_BL: jax.Array,
    mask_BL: jax.Array,
    positions_per_chunk: int = 8,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of the next token, averaged over the global number of unmasked labels (paper Eq. 3).

    Works on `positions_per_chunk` text positions at a time and recomputes each chunk's logits in the backward pass:
    logits [B, L, V] never exist in full. Chunks run along the text, so that the batch stays sharded as it is.

    Args:
      hidden_BLD: what the softmax reads.
      kernel_DV, bias_V: output projection.
      labels_BL, mask_BL: see `next_tokens`.

    Returns:
      The scalar loss, and the share of labels that are predicted right.
    """
    length = labels_BL.shape[1]
    chunk = min(positions_per_chunk, length)
    pad = -length % chunk

    def chunks(x: jax.Array) -> jax.Array:  # [B, L, …] to [L / chunk, B, chunk, …]
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def body(sums: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, jax.Array, jax.Array]):
        hidden, labels, mask = xs
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = jnp.dot(flat, kernel_DV.astype(hidden.dtype), preferred_element_type=jnp.float32) + bias_V
        labels, mask = labels.reshape(-1), mask.reshape(-1).astype(jnp.float32)
        own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        loss = jax.nn.logsumexp(logits, axis=1) - own
        right = own >= jnp.max(logits, axis=1)
        return (sums[0] + jnp.sum(loss * mask), sums[1] + jnp.sum(right * mask)), None

    xs = (chunks(hidden_BLD), chunks(labels_BL), chunks(mask_BL))
    (loss, right), _ = jax.lax.scan(body, (jnp.zeros(()), jnp.zeros(())), xs)
    count = jnp.maximum(jnp.sum(mask_BL.astype(jnp.float32)), 1.0)
    return loss / count, right / count


def continuation_mask(mask_BL: jax.Array, key: jax.Array) -> jax.Array:
    """`mask_BL` without each caption's random prefix: for a caption of n labels, 0 to n - 1 of the first (SimVLM §3)."""
    count_B = jnp.sum(mask_BL, axis=1)
    prefix_B = jnp.floor(jax.random.uniform(key, count_B.shape) * count_B)
    return mask_BL & (jnp.arange(mask_BL.shape[1]) >= prefix_B[:, None])
