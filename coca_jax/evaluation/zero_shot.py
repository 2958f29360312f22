"""Zero-shot classification as in CLIP (arXiv 2103.00020, §3.1.4): a classifier made of texts."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from coca_jax.data.evaluation_set import Classification
from coca_jax.evaluation import ranking


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What the classifier says of M images.

    Attributes:
      predicted: int64 [M], the class with the highest score; of equal ones the first.
      margins: float32 [M], by how much that score exceeds the right class's, 0 where it is the right class.
      ranks: int64 [M], how many other classes score at least as high as the right one (see `ranking`).
    """

    predicted: np.ndarray
    margins: np.ndarray
    ranks: np.ndarray


def predict(
    image_embeddings: np.ndarray, classifier: np.ndarray, targets: np.ndarray, candidates: np.ndarray | None = None
) -> Predictions:
    """Scores images [M, E] against a classifier [C, E], a chunk of images at a time; see `from_scores`."""
    chunks = ranking.query_chunks(len(image_embeddings), len(classifier))
    parts = [from_scores(image_embeddings[chunk] @ classifier.T, targets[chunk], candidates) for chunk in chunks]
    return joined(parts or [from_scores(np.zeros((0, len(classifier)), np.float32), targets, candidates)])


def joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several lots of images as one."""
    return Predictions(*(np.concatenate([getattr(part, field.name) for part in parts])
                         for field in dataclasses.fields(Predictions)))


def from_scores(scores: np.ndarray, targets: np.ndarray, candidates: np.ndarray | None = None) -> Predictions:
    """Compares scores with what is right.

    Args:
      scores: [M, C], higher is better.
      targets: int [M], the right classes; or [M, K], filled up with -1: the best of them counts.
      candidates: int [C], the classes' numbers, ascending; None: 0 to C - 1. Every target is among them.
    """
    targets = targets.reshape(len(targets), -1)
    candidates = np.arange(scores.shape[1]) if candidates is None else candidates
    right = (targets[:, :, None] == candidates).any(axis=1)
    best = np.argmax(scores, axis=1)
    own = np.max(scores, axis=1, where=right, initial=-np.inf)
    margins = (scores[np.arange(len(scores)), best] - own).astype(np.float32)
    return Predictions(candidates[best], margins, ranking.ranks(scores, right))


def candidates_of(task: Classification) -> np.ndarray:
    """The classes that can be answered, ascending."""
    return np.arange(len(task.labels)) if task.candidates is None else task.candidates


def per_class_accuracy(targets: np.ndarray, right: np.ndarray, classes: int) -> np.ndarray:
    """float64 [C]: of the images of each class the share that is right; NaN for a class without images."""
    counts = np.bincount(targets, minlength=classes)
    hits = np.bincount(targets, weights=right, minlength=classes)
    return np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many other classes score at least as high as the right one: scores [M, C], targets [M] -> int64 [M]."""
    return ranking.ranks(scores, targets[:, None] == np.arange(scores.shape[1]))


def top_k_accuracy(scores: np.ndarray, targets: np.ndarray, k: int) -> float:
    """The share of images whose right class is among the k best: scores [M, C], targets [M]. Ties count as wrong."""
    return ranking.hit_rate(target_ranks(scores, targets), k)


def confusion_matrix(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [C, C]: how many images of class `row` were taken for class `column`."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(targets: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int]]:
    """(right class, predicted class, count) of the mistakes, the most frequent first; memory does not grow with C²."""
    wrong = np.flatnonzero(targets != predicted)
    if not len(wrong):
        return []
    pairs, counts = np.unique(np.stack([targets[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]
