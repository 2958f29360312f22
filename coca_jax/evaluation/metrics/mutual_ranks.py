"""Ranks of two sides for each other, images and texts say, of which the matrix of all scores never stands in memory."""

import collections
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from coca_jax.embedding_index.nearest import block_size, filled, similarities
from coca_jax.evaluation.meaning import NO_LABEL

_SIDE = 2_048  # rows and columns of a block of scores: 16 MB of float32
_ACCELERATOR_SIDE = 8_192  # 256 MB: there the products must take longer than their factors' way to the device
_IN_FLIGHT = 2  # blocks that the device is given before the results of the first are read
_T = TypeVar("_T")


def mutual_ranks(
    first: np.ndarray, second: np.ndarray, first_labels: np.ndarray, second_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What `ranking.ranks` gives for the matrix first · secondᵀ and for its transpose.

    Blocks of the matrix are made in turn, and each serves both ways; what lasts has the length of a row or a column.
    The best right scores come first (a block without a right pair has none and is left out), then what stands above
    them is counted. One compiled program, on blocks of one shape and in full float32, does both: so a score is the same
    number each time, and equal embeddings tie wherever they stand, which products of other shapes do not grant. Of
    several processes each does all of the work, and finds the same.

    Args:
      first, second: float32 [M, E] and [N, E].
      first_labels, second_labels: int [M, J] and [N, K]; two rows are right for each other iff they share a label that
        is not NO_LABEL.

    Returns:
      int64 [M], ranks among the N rows of the other side, N where none is right; int64 [N], likewise among the M.
    """
    known = np.unique(np.concatenate([first_labels.ravel(), second_labels.ravel()]))
    rows, columns = _Side(first, first_labels, known), _Side(second, second_labels, known)
    for own, other, found in _lagged(_blocks(rows, columns, only_right=True)):
        _keep_best(rows.best, own, found.best_of_rows)
        _keep_best(columns.best, other, found.best_of_columns)
    for own, other, found in _lagged(_blocks(rows, columns, only_right=False)):
        rows.above[own] += _real(found.above_rows, own)
        columns.above[other] += _real(found.above_columns, other)
    return _finished(rows, len(columns.best)), _finished(columns, len(rows.best))


class _Rows(NamedTuple):
    """A block's part of one side: S rows, of which the first `real` are no filling."""

    embeddings: np.ndarray | jax.Array  # [S, E]
    labels: np.ndarray | jax.Array  # [S, K]
    best: np.ndarray | jax.Array  # [S], the best right scores so far
    real: int | jax.Array


class _Side:
    """One side's embeddings and labels, block by block, and what is found of each row."""

    def __init__(self, embeddings: np.ndarray, labels: np.ndarray, known: np.ndarray):
        self._embeddings = embeddings
        # Numbers that fit into 32 bits, whatever the labels were.
        self._labels = np.where(labels == NO_LABEL, NO_LABEL, np.searchsorted(known, labels)).astype(np.int32)
        self._size = block_size(len(labels), _SIDE if jax.default_backend() == "cpu" else _ACCELERATOR_SIDE)
        self.best = np.full(len(labels), -np.inf, np.float32)
        self.above = np.zeros(len(labels), np.int64)

        self.chunks = [
            slice(start, min(start + self._size, len(labels))) for start in range(0, len(labels), self._size)
        ]
        self.known = [frozenset(self._labels[chunk].ravel().tolist()) - {NO_LABEL} for chunk in self.chunks]

    def block(self, chunk: slice) -> _Rows:
        real = chunk.stop - chunk.start
        embeddings = filled(self._embeddings[chunk], self._size)
        filling = self._size - real
        labels = np.pad(self._labels[chunk], ((0, filling), (0, 0)), constant_values=NO_LABEL)
        return _Rows(embeddings, labels, np.pad(self.best[chunk], (0, filling)), real)


class _Found(NamedTuple):
    """Of a block's rows and of its columns: the best right score, and how many wrong ones are at least as good.

    −inf: none is right; inf: one is not a number.
    """

    best_of_rows: jax.Array
    best_of_columns: jax.Array
    above_rows: jax.Array
    above_columns: jax.Array


def _blocks(rows: _Side, columns: _Side, only_right: bool) -> Iterator[tuple[slice, slice, _Found]]:
    """Every block, or only those with a right pair in them."""
    for own, own_known in zip(rows.chunks, rows.known, strict=True):
        block = jax.device_put(rows.block(own))
        for other, other_known in zip(columns.chunks, columns.known, strict=True):
            if not only_right or not own_known.isdisjoint(other_known):
                yield own, other, _block(block, columns.block(other))


@jax.jit
def _block(rows: _Rows, columns: _Rows) -> _Found:
    scores = similarities(rows.embeddings, columns.embeddings)
    right = jnp.zeros(scores.shape, bool)
    for own in rows.labels.T:
        for other in columns.labels.T:
            right |= (own[:, None] == other) & (own != NO_LABEL)[:, None]
    # NaN stands out as +inf: it would get lost in a maximum.
    right_scores = jnp.where(right, jnp.where(jnp.isnan(scores), jnp.inf, scores), -jnp.inf)
    is_row, is_column = jnp.arange(scores.shape[0]) < rows.real, jnp.arange(scores.shape[1]) < columns.real
    # Not (a < b) rather than a >= b: here NaN counts as above.
    return _Found(
        right_scores.max(axis=1),
        right_scores.max(axis=0),
        jnp.sum(~right & is_column & ~(scores < rows.best[:, None]), axis=1),
        jnp.sum(~right & is_row[:, None] & ~(scores < columns.best), axis=0),
    )


def _lagged(items: Iterable[_T]) -> Iterator[_T]:
    """The same items, each handed on when _IN_FLIGHT further ones have been started."""
    waiting = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def _keep_best(best: np.ndarray, chunk: slice, found: jax.Array) -> None:
    best[chunk] = np.maximum(best[chunk], _real(found, chunk))


def _real(found: jax.Array, chunk: slice) -> np.ndarray:
    """Without what belongs to the filling."""
    return np.asarray(found)[: chunk.stop - chunk.start]


def _finished(side: _Side, candidates: int) -> np.ndarray:
    return np.where(np.isfinite(side.best), side.above, candidates)
