"""Ranks among scored candidates, where ties never flatter the model.

A right answer's rank is the number of wrong candidates that score at least as high as it does. Ties thus count
against the model: embeddings that are all equal score 0 %, not 100 %, whatever the order of the candidates; and a
score that is not a number never counts as a hit.
"""

from collections.abc import Iterator

import numpy as np

from coca_jax.embedding_index.nearest import nearest

_CHUNK_SCORES = 4_000_000  # scores in memory at a time: 16 MB of float32


def ranks(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank of each query's best right candidate, 0 the best.

    Args:
      scores: [Q, N] of each query and candidate, higher is better.
      right: bool [Q, N], which candidates answer the query; several may, and only wrong ones can stand above.

    Returns:
      int64 [Q]; N where no candidate is right.
    """
    best = np.max(scores, axis=1, keepdims=True, where=right, initial=-np.inf)  # a NaN among them stays NaN
    above = np.sum(~right & ~(scores < best), axis=1)  # not (a < b) rather than a >= b: NaN counts as above
    return np.where(right.any(axis=1) & ~np.isnan(best[:, 0]), above, scores.shape[1])


def hit_rate(query_ranks: np.ndarray, k: int) -> float:
    """The share of queries with a right answer among the first k (R@k, or top-k accuracy); NaN without queries."""
    return float(np.mean(query_ranks < k)) if len(query_ranks) else float("nan")


def chance_hit_rate(right_counts: np.ndarray, candidates: int, k: int) -> float:
    """The hit rate among the first k that a random order of the candidates reaches on average.

    Args:
      right_counts: [Q], how many of the candidates are right for each query.
      candidates: N, the size of the pool.
      k: how many of the ranked candidates count.

    Returns:
      The mean over queries of 1 − C(N − r, k) / C(N, k).
    """
    wrong = candidates - np.asarray(right_counts, np.float64)
    missed = np.ones(len(wrong))
    for drawn in range(min(k, candidates)):
        missed *= np.clip((wrong - drawn) / (candidates - drawn), 0, 1)
    return float(np.mean(1 - missed)) if len(wrong) else float("nan")


def query_chunks(queries: int, candidates: int) -> Iterator[slice]:
    """Slices of the queries small enough that their scores against all candidates fit in memory."""
    size = max(1, _CHUNK_SCORES // max(1, candidates))
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))


def top(query_embeddings: np.ndarray, candidate_embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates most similar to each query, the best first; of equal ones the earlier comes first.

    Args:
      query_embeddings: [Q, E].
      candidate_embeddings: [N, E].
      k: how many to return; at most N of them exist.

    Returns:
      indices: int64 [Q, min(k, N)] of the candidates.
      scores: float32 [Q, min(k, N)], their dot products with the query.
    """
    return nearest(query_embeddings, [candidate_embeddings], k)
