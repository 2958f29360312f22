"""Contrastive and captioning losses: pure functions of arrays, float32.

Letters: N global batch, R a device's own rows of it, C a chunk of columns, E embedding, B batch,
L text length, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from coca_jax.distributed.sharding import RULES, Axis, constrain, spec


def contrastive_loss(
    image_NE: jax.Array, text_NE: jax.Array, temperature: jax.Array, columns_per_chunk: int = 4_096
) -> tuple[jax.Array, jax.Array]:
    """Symmetric image-text cross-entropy over the global batch (paper Eq. 2, averaged over its two directions).

    The paper prints a sum of two sums over N; Google's public code divides by 2N, as here (docs/decisions.md).
    Each device compares its own rows with the embeddings of all devices, `columns_per_chunk` of them at a time: no N x N
    array is ever resident. Outside a mesh the same runs on one device.

    Args:
      image_NE, text_NE: L2-normalised, float32; row i of one belongs to row i of the other.
      temperature: scalar that divides the similarities.

    Returns:
      The scalar loss, and the share of images whose own text is the most similar one.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return _local_contrastive_loss(image_NE, text_NE, temperature, columns_per_chunk, ())
    rows = spec(Axis.BATCH, Axis.LENGTH)

    def local(image, text, t):
        return _local_contrastive_loss(image, text, t, columns_per_chunk, RULES[Axis.BATCH])

    return jax.shard_map(local, in_specs=(rows, rows, PartitionSpec()), out_specs=(PartitionSpec(), PartitionSpec()))(
        image_NE, text_NE, temperature
    )


def _local_contrastive_loss(
    image_RE: jax.Array, text_RE: jax.Array, temperature: jax.Array, columns_per_chunk: int, axes: tuple[str, ...]
) -> tuple[jax.Array, jax.Array]:
    """The global loss from R local rows; `axes` are the mesh axes that the batch lies on."""

    def gather(x):
        return jax.lax.all_gather(x, axes, tiled=True) if axes else x

    def total(x):
        return jax.lax.psum(jnp.sum(x), axes) if axes else jnp.sum(x)

    own_R = jnp.sum(image_RE * text_RE, axis=1) / temperature
    image_lse_R, rank_R = _over_columns(image_RE / temperature, gather(text_RE), own_R, columns_per_chunk)
    text_lse_R, _ = _over_columns(text_RE / temperature, gather(image_RE), own_R, columns_per_chunk)
    count = total(jnp.ones_like(own_R))
    right_R = (rank_R <= 1).astype(jnp.float32)  # ties count as wrong: collapsed embeddings score 0
    return total(image_lse_R + text_lse_R - 2 * own_R) / (2 * count), total(right_R) / count


def _over_columns(
    rows_RE: jax.Array, columns_NE: jax.Array, own_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Over all columns, one chunk of them at a time: log Σ exp of rows · columns, and how many of these reach `own_R`."""
    count = columns_NE.shape[0]
    chunk = min(chunk, count)
    lowest = jnp.finfo(jnp.float32).min
    starts = jnp.arange(-(-count // chunk)) * chunk
    columns_NE = jnp.pad(columns_NE, ((0, -count % chunk), (0, 0)))
    # The row's own column, summed in another order than own_R, may fall short of it by a rounding error.
    reached_R = jax.lax.stop_gradient(own_R) - 1e-4

    @jax.checkpoint  # the backward pass makes each chunk's similarities again
    def body(carry: tuple[jax.Array, jax.Array], start: jax.Array):
        part_CE = jax.lax.dynamic_slice_in_dim(columns_NE, start, chunk)
        logits_RC = jnp.dot(rows_RE, part_CE.T, precision="highest")
        logits_RC = jnp.where(start + jnp.arange(chunk) < count, logits_RC, lowest)
        lse, rank = carry
        lse = jnp.logaddexp(lse, jax.nn.logsumexp(logits_RC, axis=1))
        return (lse, rank + jnp.sum(logits_RC >= reached_R[:, None], axis=1)), None

    start = (jnp.full_like(own_R, lowest), jnp.zeros_like(own_R, jnp.int32))
    return jax.lax.scan(body, start, starts)[0]


def next_tokens(ids_BL: jax.Array, valid_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels and their mask: at position t the token t + 1, where that is not a pad. EOS is a label once, BOS never."""

    def shift(x):
        return jnp.pad(x[:, 1:], ((0, 0), (0, 1)))

    return shift(ids_BL), shift(valid_BL)


def captioning_loss(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    bias_V: jax.Array,
    labels_BL: jax.Array,
    mask_BL: jax.Array,
    count: jax.Array | None = None,
    positions_per_chunk: int = 8,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of the next token, averaged over the global number of unmasked labels (paper Eq. 3).

    Works on `positions_per_chunk` text positions at a time and recomputes each chunk's logits in the backward pass:
    logits [B, L, V] never exist in full. Chunks run along the text, so that the batch stays sharded as it is.

    Args:
      hidden_BLD: what the softmax reads.
      kernel_DV, bias_V: output projection.
      labels_BL, mask_BL: see `next_tokens`.
      count: what to divide by; by default the number of unmasked labels. A part of a batch needs the whole batch's.

    Returns:
      The scalar loss, and the share of labels that are predicted right.
    """
    loss_B, right_B = captioning_sums(hidden_BLD, kernel_DV, bias_V, labels_BL, mask_BL, positions_per_chunk)
    count = jnp.sum(mask_BL) if count is None else count
    count = jnp.maximum(count.astype(jnp.float32), 1.0)
    return jnp.sum(loss_B) / count, jnp.sum(right_B) / count


def captioning_sums(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    bias_V: jax.Array,
    labels_BL: jax.Array,
    mask_BL: jax.Array,
    positions_per_chunk: int = 8,
) -> tuple[jax.Array, jax.Array]:
    """Each caption's sum of losses, and its number of right predictions, float32 [B]; see `captioning_loss`."""
    arguments = (hidden_BLD, kernel_DV, bias_V, labels_BL, mask_BL)
    if jax.sharding.get_abstract_mesh().empty:
        return _captioning_sums(*arguments, positions_per_chunk, ())
    axes = RULES[Axis.BATCH]
    rows, whole = PartitionSpec(axes), PartitionSpec()

    def sums(*local):
        return _captioning_sums(*local, positions_per_chunk, axes)

    # Over `tensor` the vocabulary stays sharded.
    return jax.shard_map(sums, in_specs=(rows, whole, whole, rows, rows), out_specs=(rows, rows), axis_names=set(axes))(
        *arguments
    )


def _captioning_sums(
    hidden_BLD: jax.Array,
    kernel_DV: jax.Array,
    bias_V: jax.Array,
    labels_BL: jax.Array,
    mask_BL: jax.Array,
    positions_per_chunk: int,
    axes: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
    """`captioning_sums` of the device's own rows; `axes` are the mesh axes that the batch lies on."""
    batch, length = labels_BL.shape
    chunk = min(positions_per_chunk, length)
    pad = -length % chunk

    # Before the loop, so that the kernel is gathered and its gradient summed over the devices once, not once a chunk;
    # as float32, so that the sum is one too.
    def varying(x):
        return jax.lax.pcast(x, axes, to="varying") if axes else x

    kernel_DV, bias_V = varying(kernel_DV), varying(bias_V)

    def chunks(x: jax.Array) -> jax.Array:  # [B, L, …] to [L / chunk, B, chunk, …]
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def body(sums: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, jax.Array, jax.Array]):
        hidden, labels, mask = xs
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = jnp.dot(flat, kernel_DV.astype(hidden.dtype), preferred_element_type=jnp.float32) + bias_V
        logits = constrain(logits, Axis.LENGTH, Axis.ACTIVATION_VOCABULARY)
        labels, mask = labels.reshape(-1), mask.reshape(-1).astype(jnp.float32)
        own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        loss = jax.nn.logsumexp(logits, axis=1) - own
        right = own >= jnp.max(logits, axis=1)

        def by_row(x):
            return jnp.sum((x * mask).reshape(batch, chunk), axis=1)

        return (sums[0] + by_row(loss), sums[1] + by_row(right)), None

    xs = (chunks(hidden_BLD), chunks(labels_BL), chunks(mask_BL))
    zeros_B = varying(jnp.zeros(batch))
    return jax.lax.scan(body, (zeros_B, zeros_B), xs)[0]


def continuation_mask(mask_BL: jax.Array, key: jax.Array) -> jax.Array:
    """`mask_BL` without each caption's random prefix: for a caption of n labels, 0 to n - 1 of the first (SimVLM §3)."""
    count_B = jnp.sum(mask_BL, axis=1)
    prefix_B = jnp.floor(jax.random.uniform(key, count_B.shape) * count_B)
    return mask_BL & (jnp.arange(mask_BL.shape[1]) >= prefix_B[:, None])
