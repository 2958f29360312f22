"""Caption likelihoods: log p(text | image) of many texts for each image, which is encoded once."""

from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.models.coca import Coca, generation_parameters
from coca_jax.models.text_decoder import causal_mask, empty_cache

_SLOTS = 128  # tokens read in one pass: several texts lie behind one another on the length axis
_LOGITS = 32 * 1024 * 1024  # computed at a time


def log_likelihoods(model: Coca, params: Any, images: jax.Array, ids_CL: jax.Array, pad_id: int) -> jax.Array:
    """log p(text | image) = Σₜ log p(tokenₜ | tokens before t, image), over the text's tokens and EOS.

    An image's tokens are pooled once, and their keys and values projected once, for all texts. As many texts as fit are
    laid behind one another, each with its own positions, and a mask keeps them apart.

    Args:
      images: uint8 or float [B, S, S, 3], or precomputed tokens [B, N, D].
      ids_CL: int32, the C texts: BOS, tokens, EOS, pads.

    Returns:
      float32 [B, C].
    """
    batch, (count, length) = images.shape[0], ids_CL.shape
    decoder = {"params": generation_parameters(params, model.config)}
    tokens_BQD = model.apply({"params": params}, images, method="encode_image").tokens_BQD
    together = max(1, min(_SLOTS // length, count))
    ids_CL = jnp.pad(ids_CL, ((0, -count % together), (0, 0)), constant_values=pad_id)
    groups = ids_CL.reshape(-1, together, length)

    def read(cache: Any, ids_KL: jax.Array, tokens_BQD: jax.Array | None = None) -> tuple[Any, jax.Array]:
        """The cache, whose earlier texts are overwritten, and the log probabilities of K texts [B, K]."""
        slots = together * length
        mask_KLKL = jnp.eye(together, dtype=bool)[:, None, :, None] & causal_mask(ids_KL != pad_id)[:, 0, :, None, :]
        mask_BLS = jnp.broadcast_to(mask_KLKL.reshape(slots, slots), (batch, slots, slots))

        def for_all(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x.reshape(slots), (batch, slots))

        positions = jnp.broadcast_to(jnp.arange(length), ids_KL.shape)
        output = model.apply(
            decoder, for_all(ids_KL), for_all(positions), mask_BLS, 0, cache, tokens_BQD, method="extend"
        )
        labels_KL = jnp.pad(ids_KL[:, 1:], ((0, 0), (0, 1)), constant_values=pad_id)
        log_p_BS = _label_log_probabilities(model, decoder, output.hidden_BLD, labels_KL.reshape(slots))
        counted = jnp.where((labels_KL != pad_id).reshape(slots), log_p_BS, 0)
        return output.cache, counted.reshape(batch, together, length).sum(axis=2)

    cache, first_BK = read(empty_cache(model.config, batch, together * length), groups[0], tokens_BQD)
    rest = jax.lax.scan(read, cache, groups[1:])[1]  # [groups - 1, B, K]
    return jnp.concatenate([first_BK, jnp.moveaxis(rest, 0, 1).reshape(batch, -1)], axis=1)[:, :count]


def _label_log_probabilities(model: Coca, decoder: Any, hidden_BSD: jax.Array, labels_S: jax.Array) -> jax.Array:
    """Log probabilities of the labels, float32 [B, S], for a chunk of positions at a time: [B, S, V] never exists."""
    batch, slots, width = hidden_BSD.shape
    most = max(1, _LOGITS // (batch * model.config.text.vocabulary_size))
    chunk = max(size for size in range(1, slots + 1) if slots % size == 0 and size <= most)

    def part(xs: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden_BPD, labels_P = xs
        logits_BPV = model.apply(decoder, hidden_BPD, method="next_logits")
        labels_BP1 = jnp.broadcast_to(labels_P, (batch, chunk))[..., None]
        return jnp.take_along_axis(logits_BPV, labels_BP1, axis=2)[..., 0] - jax.nn.logsumexp(logits_BPV, axis=2)

    parts = jnp.moveaxis(hidden_BSD.reshape(batch, -1, chunk, width), 1, 0)
    return jnp.moveaxis(jax.lax.map(part, (parts, labels_S.reshape(-1, chunk))), 0, 1).reshape(batch, slots)
