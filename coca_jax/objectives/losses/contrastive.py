"""The contrastive loss over the global batch.

Letters: N global batch, R a device's own rows of it, C a chunk of columns, E embedding.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from coca_jax.distributed.sharding import Axis, mesh_axes, spec


def contrastive_loss(
    image_NE: Array, text_NE: Array, temperature: Array, columns_per_chunk: int = 4_096
) -> tuple[Array, Array]:
    """Symmetric image-text cross-entropy over the global batch (CoCa Eq. 2, averaged over its two directions).

        L = -1/(2N) Σ_i [ log( exp(x_i·y_i / T) / Σ_j exp(x_i·y_j / T) ) + log( exp(y_i·x_i / T) / Σ_j exp(y_i·x_j / T) ) ]

    with images x, texts y (L2-normalised, float32) and temperature T. The paper prints the two sums over N; Google's
    public code divides by 2N, as here (docs/decisions.md). Each device compares its own rows with the embeddings of all
    devices, `columns_per_chunk` at a time: no N x N array is ever resident.

    Returns:
      The scalar loss, and the share of images whose own text is the most similar one (a tie counts as wrong).

    >>> x = jnp.eye(4)  # four perfect pairs: log(1 + 3 exp(-1 / T))
    >>> loss, accuracy = contrastive_loss(x, x, jnp.float32(1.0))
    >>> round(float(loss), 4), float(accuracy)
    (0.7437, 1.0)
    """
    chex.assert_rank([image_NE, temperature], [2, 0])
    chex.assert_equal_shape([image_NE, text_NE])
    if jax.sharding.get_abstract_mesh().empty:
        return _local_contrastive_loss(image_NE, text_NE, temperature, columns_per_chunk, ())
    rows, whole = spec(Axis.BATCH, Axis.LENGTH), PartitionSpec()
    axes = mesh_axes(Axis.BATCH)
    local = functools.partial(_local_contrastive_loss, columns_per_chunk=columns_per_chunk, axes=axes)
    return jax.shard_map(local, in_specs=(rows, rows, whole), out_specs=(whole, whole))(image_NE, text_NE, temperature)


def _local_contrastive_loss(
    image_RE: Array, text_RE: Array, temperature: Array, columns_per_chunk: int, axes: tuple[str, ...]
) -> tuple[Array, Array]:
    """The global loss from R local rows; `axes` are the mesh axes that the batch lies on."""

    def gather(x):
        return jax.lax.all_gather(x, axes, tiled=True) if axes else x

    def total(x):
        return jax.lax.psum(jnp.sum(x), axes) if axes else jnp.sum(x)

    paired_R = jnp.sum(image_RE * text_RE, axis=1) / temperature
    image_lse_R, rank_R = _over_columns(image_RE / temperature, gather(text_RE), paired_R, columns_per_chunk)
    text_lse_R, _ = _over_columns(text_RE / temperature, gather(image_RE), paired_R, columns_per_chunk)
    count = total(jnp.ones_like(paired_R))
    right_R = (rank_R <= 1).astype(jnp.float32)  # ties count as wrong: collapsed embeddings score 0
    return total(image_lse_R + text_lse_R - 2 * paired_R) / (2 * count), total(right_R) / count


def _over_columns(rows_RE: Array, columns_NE: Array, paired_R: Array, chunk: int) -> tuple[Array, Array]:
    """Over all columns, a chunk at a time: log Σ exp of rows · columns, and how many of these reach `paired_R`."""
    count = columns_NE.shape[0]
    chunk = min(chunk, count)
    lowest = jnp.finfo(jnp.float32).min
    starts = jnp.arange(-(-count // chunk)) * chunk
    columns_NE = jnp.pad(columns_NE, ((0, -count % chunk), (0, 0)))
    # The row's paired column, summed in another order than paired_R, may fall short of it by a rounding error.
    reached_R = jax.lax.stop_gradient(paired_R) - 1e-4

    @jax.checkpoint  # the backward pass makes each chunk's similarities again
    def body(carry: tuple[Array, Array], start: Array):
        part_CE = jax.lax.dynamic_slice_in_dim(columns_NE, start, chunk)
        logits_RC = jnp.dot(rows_RE, part_CE.T, precision="highest")
        logits_RC = jnp.where(start + jnp.arange(chunk)[None] < count, logits_RC, lowest)
        lse, rank = carry
        lse = jnp.logaddexp(lse, jax.nn.logsumexp(logits_RC, axis=1))
        return (lse, rank + jnp.sum(logits_RC >= reached_R[:, None], axis=1)), None

    start = (jnp.full_like(paired_R, lowest), jnp.zeros_like(paired_R, jnp.int32))
    return jax.lax.scan(body, start, starts)[0]
