"""Ranks among scored candidates, where ties never flatter the model.

A right answer's rank is the number of wrong candidates that score at least as high as it does: embeddings that are all
equal reach 0 %, not 100 %, whatever the order of the candidates. A score that is not a number never counts as a hit.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from coca_jax.embedding_index.nearest import filled, similarities

NO_LABEL = -1  # fills the rows of a label table that have fewer labels than the widest one
_SCORES = 4_000_000  # in memory at a time: 16 MB of float32
_FEWEST = 16  # queries of a block
_similarities = jax.jit(similarities)


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank of each query's best right candidate, int64 [Q]: 0 the best, N where no candidate is right.

    >>> ranks(np.array([[0.9, 0.5, 0.1], [0.5, 0.5, 0.1]]), np.array([[True, False, False]] * 2)).tolist()
    [0, 1]

    Args:
      scores: [Q, N] of each query and candidate, higher is better.
      right: bool [Q, N], which candidates answer the query; several may, and only wrong ones can stand above.
    """
    best = np.max(scores, axis=1, keepdims=True, where=right, initial=-np.inf)  # a NaN among them stays NaN
    above = np.sum(~right & ~(scores < best), axis=1)  # not (a < b) rather than a >= b: NaN counts as above
    return np.where(right.any(axis=1) & ~np.isnan(best[:, 0]), above, scores.shape[1])


def hit_rate(query_ranks: np.ndarray, k: int) -> float:
    """The share of queries with a right answer among the first k (R@k, or top-k accuracy); NaN without queries.

    >>> hit_rate(np.array([0, 4, 5, 0]), 5)
    0.75
    """
    return float(np.mean(query_ranks < k)) if len(query_ranks) else float("nan")


def chance_hit_rate(right_counts: np.ndarray, candidates: int, k: int) -> float:
    """The hit rate among the first k that a random order of the candidates reaches on average.

    It is the mean over queries of 1 - C(N - r, k) / C(N, k), for r right ones among N candidates; NaN without queries.

    >>> chance_hit_rate(np.array([1, 3]), 4, 1)
    0.5
    """
    wrong = candidates - np.asarray(right_counts, np.float64)
    missed = np.ones(len(wrong))
    for drawn in range(min(k, candidates)):
        missed *= np.clip((wrong - drawn) / (candidates - drawn), 0, 1)
    return float(np.mean(1 - missed)) if len(wrong) else float("nan")


def scored_blocks(queries: np.ndarray, candidates: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The dot products of all queries [Q, E] with all candidates [N, E] in full float32, some queries at a time.

    Each distinct candidate is scored once, so that equal candidates tie exactly: in a product of all of them a copy
    may round differently, depending on where it stands.

    Yields:
      Which queries, and their scores, float32 [n, N].
    """
    distinct, places = np.unique(candidates, axis=0, return_inverse=True)
    on_device = jnp.asarray(distinct, jnp.float32)
    size = min(len(queries), max(_FEWEST, _SCORES // max(1, len(candidates))))
    for start in range(0, len(queries), max(1, size)):
        rows = slice(start, min(start + size, len(queries)))
        block = filled(queries[rows], size)  # one shape is compiled once
        yield rows, np.asarray(_similarities(block, on_device))[: rows.stop - start, places]


def label_ranks(
    queries: np.ndarray, candidates: np.ndarray, query_labels: np.ndarray, candidate_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks by dot product, where a candidate is right for a query iff they share a label.

    Args:
      queries, candidates: float32 [Q, E] and [N, E].
      query_labels, candidate_labels: int [Q, J] and [N, K], filled up with NO_LABEL.

    Returns:
      int64 [Q], as `ranks`; int64 [Q], how many candidates are right.
    """
    query_ranks, counts = np.zeros((2, len(queries)), np.int64)
    for rows, scores in scored_blocks(queries, candidates):
        right = np.zeros(scores.shape, bool)
        for own in query_labels[rows].T:
            for other in candidate_labels.T:
                right |= (own[:, None] == other) & (own != NO_LABEL)[:, None]
        query_ranks[rows], counts[rows] = ranks(scores, right), right.sum(axis=1)
    return query_ranks, counts
