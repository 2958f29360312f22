"""Exact search among vectors that need not fit in memory, on the accelerator where there is one."""

from collections.abc import Iterator, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

_QUERIES = 256  # of a block
_VECTORS = 16_384  # of a block: 16 MB of scores, and 50 MB of vectors 768 wide
_SMALLEST = 16  # rows of a block; a matrix product of fewer may round differently
_LOWEST = float(np.finfo(np.float32).min)


def nearest(queries: np.ndarray, parts: Sequence[Any], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors most similar to each query, the best first; of equal ones the earlier comes first.

    Scores are dot products in full float32; NaN comes last. All blocks are padded to one shape, so that a vector's score
    does not depend on its position, and copies of it tie.

    Args:
      queries: [Q, E].
      parts: arrays [n, E] of any float type, also memory-mapped, that together are the N vectors.

    Returns:
      Indices of the vectors, counted through all parts, int64 [Q, min(k, N)]; and their scores, float32.
    """
    chex.assert_equal_shape_suffix([queries, *parts], 1)
    k = min(k, sum(map(len, parts)))
    indices, scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    if not k:
        return indices, scores
    size, height = _block_size(max(map(len, parts)), _VECTORS), _block_size(len(queries), _QUERIES)
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, min(start + _QUERIES, len(queries)))
        block, real = filled(queries[rows], height), rows.stop - start
        scores_QK, indices_QK = jnp.full((height, k), -jnp.inf), jnp.zeros((height, k), jnp.int32)
        for first, vectors in _blocks(parts):
            scores_QK.block_until_ready()  # reading runs at most one block ahead, or blocks would fill the memory
            scores_QK, indices_QK = _merge(block, filled(vectors, size), len(vectors), first, scores_QK, indices_QK)
        scores[rows], indices[rows] = np.asarray(scores_QK)[:real], np.asarray(indices_QK)[:real]
    return indices, scores


def _block_size(rows: int, most: int) -> int:
    """Rows of a block: `most`, or the next power of two if one smaller block holds all `rows`."""
    return min(most, max(_SMALLEST, 1 << (rows - 1).bit_length()))


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows in float32, padded with zeros to `size` rows, because products of other shapes round differently."""
    return np.pad(np.asarray(rows, np.float32), ((0, size - len(rows)), (0, 0)))


def similarities(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """Dot products [Q, N] of [Q, E] and [N, E] in float32; accelerators round the factors by default."""
    return jnp.einsum("qe,ne->qn", queries, vectors, precision=jax.lax.Precision.HIGHEST)


def _blocks(parts: Sequence[Any]) -> Iterator[tuple[int, np.ndarray]]:
    first = 0
    for part in parts:
        for start in range(0, len(part), _VECTORS):
            yield first + start, part[start : start + _VECTORS]
        first += len(part)


@jax.jit
def _merge(
    queries: jax.Array, vectors: jax.Array, real: int, first: int, best_QK: jax.Array, indices_QK: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scores and indices of the best so far [Q, k], merged with the `real` vectors from the index `first` on."""
    k = best_QK.shape[1]
    scores = similarities(queries, vectors)
    scores = jnp.where(scores == 0, 0.0, jnp.nan_to_num(scores, nan=_LOWEST, neginf=_LOWEST))  # -0 ties with 0
    scores = jnp.where(jnp.arange(len(vectors)) < real, scores, -jnp.inf)
    new, positions = jax.lax.top_k(scores, min(k, len(vectors)))  # stable: of equal scores the earlier comes first
    merged_QK, chosen_QK = jax.lax.top_k(jnp.concatenate([best_QK, new], axis=1), k)
    indices = jnp.concatenate([indices_QK, positions + first], axis=1)
    return merged_QK, jnp.take_along_axis(indices, chosen_QK, axis=1)
