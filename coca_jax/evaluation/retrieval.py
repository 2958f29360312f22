"""Image↔text retrieval: R@k both ways, with several right answers per query."""

import dataclasses

import numpy as np

from coca_jax.evaluation import ranking
from coca_jax.evaluation.meaning import NO_LABEL

RECALL_AT = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class RetrievalScores:
    """`image_to_text_r1` … `text_to_image_r10` as fractions, and what a random order would reach on the same pool."""

    metrics: dict[str, float]
    chance: dict[str, float]


def retrieval(
    image_embeddings: np.ndarray, text_embeddings: np.ndarray, image_labels: np.ndarray, text_labels: np.ndarray
) -> RetrievalScores:
    """R@1, R@5 and R@10: the share of queries with at least one right answer among the first k.

    Ties count against the model (see `ranking`). Scores are computed for a chunk of queries at a time, so memory does
    not grow with M × T.

    Args:
      image_embeddings: float32 [M, E], L2-normalised.
      text_embeddings: float32 [T, E], L2-normalised.
      image_labels: int [M], or [M, K] for images with several meanings, filled up with NO_LABEL.
      text_labels: int [T], at least 0; an image and a text are right for each other iff the text's label is among
        the image's.
    """
    image_labels = image_labels.reshape(len(image_labels), -1)
    metrics, chance = {}, {}
    ways = {
        "image_to_text": (
            _ranks(image_embeddings, text_embeddings, image_labels, text_labels[:, None]),
            _right_counts(image_labels, text_labels[:, None]),
            len(text_labels),
        ),
        "text_to_image": (
            _ranks(text_embeddings, image_embeddings, text_labels[:, None], image_labels),
            _right_counts(text_labels[:, None], image_labels),
            len(image_labels),
        ),
    }
    for way, (query_ranks, right_counts, candidates) in ways.items():
        for k in RECALL_AT:
            metrics[f"{way}_r{k}"] = ranking.hit_rate(query_ranks, k)
            chance[f"{way}_r{k}"] = ranking.chance_hit_rate(right_counts, candidates, k)
    return RetrievalScores(metrics, chance)


def matches(query_labels: np.ndarray, candidate_labels: np.ndarray) -> np.ndarray:
    """bool [Q, N]: whether a query, labels [Q, J], and a candidate, labels [N, K], share one that is not NO_LABEL."""
    right = np.zeros((len(query_labels), len(candidate_labels)), bool)
    for query_column in query_labels.T:
        for candidate_column in candidate_labels.T:
            right |= (query_column[:, None] == candidate_column) & (query_column != NO_LABEL)[:, None]
    return right


def _ranks(queries: np.ndarray, candidates: np.ndarray, query_labels: np.ndarray, candidate_labels: np.ndarray):
    result = np.zeros(len(queries), np.int64)
    for chunk in ranking.query_chunks(len(queries), len(candidates)):
        scores = queries[chunk] @ candidates.T
        result[chunk] = ranking.ranks(scores, matches(query_labels[chunk], candidate_labels))
    return result


def _right_counts(query_labels: np.ndarray, candidate_labels: np.ndarray) -> np.ndarray:
    result = np.zeros(len(query_labels), np.int64)
    for chunk in ranking.query_chunks(len(query_labels), len(candidate_labels)):
        result[chunk] = matches(query_labels[chunk], candidate_labels).sum(axis=1)
    return result
