"""Exact search among vectors that need not fit in memory, on the accelerator where there is one."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

_QUERIES = 256  # at a time
_VECTORS = 16_384  # at a time: 16 MB of scores, and 50 MB of vectors 768 wide
_SMALLEST = 16  # rows of a block; a matrix product of fewer may round differently
_LOWEST = float(np.finfo(np.float32).min)


def nearest(queries: np.ndarray, parts: Sequence[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors most similar to each query, the best first; of equal ones the earlier comes first.

    Scores are dot products in full float32, whatever the accelerator's default precision. Blocks are filled up to one
    shape, so that a vector scores the same wherever it stands, and copies of it tie. A score that is not a number
    comes last.

    Args:
      queries: [Q, E].
      parts: arrays [n, E], of any float type, memory-mapped ones too, that together are the N vectors.
      k: how many to return; at most N of them exist.

    Returns:
      indices: int64 [Q, min(k, N)] of the vectors, counted through all parts.
      scores: float32 [Q, min(k, N)].
    """
    k = min(k, sum(map(len, parts)))
    indices, scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    if not k:
        return indices, scores
    size = block_size(max(map(len, parts)), _VECTORS)
    for start in range(0, len(queries), _QUERIES):
        now = slice(start, min(start + _QUERIES, len(queries)))
        block = filled(queries[now], block_size(len(queries), _QUERIES))
        best = (jnp.full((len(block), k), -jnp.inf), jnp.zeros((len(block), k), jnp.int32))
        for first, vectors in _blocks(parts):
            best[0].block_until_ready()  # while this block was read; more would pile up in memory
            best = _merged(block, filled(vectors, size), len(vectors), first, *best)
        real = now.stop - now.start
        scores[now], indices[now] = (np.asarray(found)[:real] for found in best)
    return indices, scores


def block_size(rows: int, most: int) -> int:
    """How many rows each block of so many has: `most`, or fewer where one block holds all, and then a power of two."""
    return min(most, max(_SMALLEST, 1 << (rows - 1).bit_length()))


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """The rows in float32 and zeros below: one shape for all blocks, since products of another round differently."""
    return np.pad(np.asarray(rows, np.float32), ((0, size - len(rows)), (0, 0)))


def similarities(queries: jax.Array, vectors: jax.Array) -> jax.Array:
    """[Q, E], [N, E] -> [Q, N]: dot products; accelerators would by default round the factors to fewer digits."""
    return jnp.einsum("qe,ne->qn", queries, vectors, precision=jax.lax.Precision.HIGHEST)


def _blocks(parts: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    first = 0
    for part in parts:
        for start in range(0, len(part), _VECTORS):
            yield first + start, part[start : start + _VECTORS]
        first += len(part)


@jax.jit
def _merged(
    queries: jax.Array, vectors: jax.Array, real: int, first: int, best: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The best so far, [Q, k] and their indices, with those among `real` vectors from the index `first` on."""
    k = best.shape[1]
    scores = similarities(queries, vectors)
    scores = jnp.where(scores == 0, 0.0, jnp.nan_to_num(scores, nan=_LOWEST, neginf=_LOWEST))  # -0 ties with 0
    scores = jnp.where(jnp.arange(len(vectors)) < real, scores, -jnp.inf)
    found, places = jax.lax.top_k(scores, min(k, len(vectors)))  # stable
    found, places_of_both = jax.lax.top_k(jnp.concatenate([best, found], axis=1), k)
    both = jnp.concatenate([indices, places + first], axis=1)
    return found, jnp.take_along_axis(both, places_of_both, axis=1)
