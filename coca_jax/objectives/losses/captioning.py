"""The captioning loss: next-token cross-entropy without the logits of all positions at once.

Letters: B batch, L text length, D width, V vocabulary.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from coca_jax.distributed.sharding import Axis, constrain, mesh_axes, ways


def next_tokens(ids_BL: Array, valid_BL: Array) -> tuple[Array, Array]:
    """Labels and their mask: at position t the token t + 1, where that is not a pad. EOS is a label once, BOS never.

    >>> ids = jnp.array([[3, 7, 8, 1, 0]])  # BOS, two tokens, EOS, a pad
    >>> labels, mask = next_tokens(ids, ids != 0)
    >>> labels[mask].tolist()
    [7, 8, 1]
    """
    chex.assert_rank(ids_BL, 2)
    chex.assert_equal_shape([ids_BL, valid_BL])

    labels_BL, mask_BL = (jnp.pad(x[:, 1:], ((0, 0), (0, 1))) for x in (ids_BL, valid_BL))
    return labels_BL, mask_BL


def continuation_mask(mask_BL: Array, key: Array) -> Array:
    """`mask_BL` without each caption's random prefix: of n labels, the first 0 to n - 1 (SimVLM, arXiv 2108.10904, §3)."""
    count_B = jnp.sum(mask_BL, axis=1)
    prefix_B = jnp.floor(jax.random.uniform(key, count_B.shape) * count_B)
    return mask_BL & (jnp.arange(mask_BL.shape[1])[None] >= prefix_B[:, None])


def captioning_sums(
    hidden_BLD: Array, kernel_DV: Array, bias_V: Array, labels_BL: Array, mask_BL: Array, positions_per_chunk: int = 8
) -> tuple[Array, Array]:
    """Each caption's sum of next-token cross-entropies, and its number of correct predictions (CoCa Eq. 3).

        loss_b = -Σ_t mask_bt log softmax(hidden_bt · kernel + bias)[label_bt]

    The caller divides by the global batch's number of labels. `positions_per_chunk` text positions are computed at a
    time, and each chunk's logits again in the backward pass: logits [B, L, V] never exist in full. Chunks run along the
    text, so that the batch stays sharded as it is. `labels_BL` and `mask_BL` are those of `next_tokens`.
    """
    chex.assert_shape(kernel_DV, (hidden_BLD.shape[-1], *bias_V.shape))
    chex.assert_shape([labels_BL, mask_BL], hidden_BLD.shape[:2])
    arguments = (hidden_BLD, kernel_DV, bias_V, labels_BL, mask_BL)
    mesh, axes = jax.sharding.get_abstract_mesh(), mesh_axes(Axis.BATCH)
    if mesh.empty or ways(mesh, Axis.BATCH) == 1:  # XLA cannot partition a shard_map over axes of one device
        return _local_sums(positions_per_chunk, (), *arguments)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    local = functools.partial(_local_sums, positions_per_chunk, axes)
    # Over `tensor` the vocabulary stays sharded.
    specs = (rows, whole, whole, rows, rows)
    return jax.shard_map(local, in_specs=specs, out_specs=(rows, rows), axis_names=set(axes))(*arguments)


def _local_sums(positions_per_chunk: int, axes: tuple[str, ...], *arguments: Array) -> tuple[Array, Array]:
    """`captioning_sums` of the device's own rows; `axes` are the mesh axes that the batch lies on."""
    hidden_BLD, kernel_DV, bias_V, labels_BL, mask_BL = arguments
    batch, length = labels_BL.shape
    chunk = min(positions_per_chunk, length)
    pad = -length % chunk

    # Before the loop, so that the kernel is gathered and its gradient summed over the devices once, not once a chunk;
    # as float32, so that the sum is one too.
    def varying(x):
        return jax.lax.pcast(x, axes, to="varying") if axes else x

    kernel_DV, bias_V = varying(kernel_DV), varying(bias_V)

    def chunks(x: Array) -> Array:  # [B, L, …] to [L / chunk, B, chunk, …]
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def body(sums: tuple[Array, Array], xs: tuple[Array, Array, Array]):
        hidden, labels, mask = xs
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = jnp.dot(flat, kernel_DV.astype(hidden.dtype), preferred_element_type=jnp.float32) + bias_V[None]
        logits = constrain(logits, Axis.LENGTH, Axis.ACTIVATION_VOCABULARY)
        labels, mask = labels.reshape(-1), mask.reshape(-1).astype(jnp.float32)
        label_logits = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        loss = jax.nn.logsumexp(logits, axis=1) - label_logits
        right = label_logits >= jnp.max(logits, axis=1)

        def by_row(x):
            return jnp.sum((x * mask).reshape(batch, chunk), axis=1)

        return (sums[0] + by_row(loss), sums[1] + by_row(right)), None

    xs = (chunks(hidden_BLD), chunks(labels_BL), chunks(mask_BL))
    zeros_B = varying(jnp.zeros(batch))
    return jax.lax.scan(body, (zeros_B, zeros_B), xs)[0]
