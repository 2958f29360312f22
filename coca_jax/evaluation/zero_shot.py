"""Zero-shot classification as in CLIP (arXiv 2103.00020, §3.1.4): a classifier made of texts."""

import dataclasses

import numpy as np

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


def predict(image_embeddings: np.ndarray, classifier: np.ndarray, targets: np.ndarray) -> Predictions:
    """Scores images [M, E] against a classifier [C, E], a chunk of images at a time, and compares with targets [M]."""
    images, classes = len(image_embeddings), len(classifier)
    predicted, ranks = np.zeros(images, np.int64), np.zeros(images, np.int64)
    margins = np.zeros(images, np.float32)
    for chunk in ranking.query_chunks(images, classes):
        scores = image_embeddings[chunk] @ classifier.T
        rows, right = np.arange(len(scores)), targets[chunk]
        predicted[chunk] = np.argmax(scores, axis=1)
        margins[chunk] = scores[rows, predicted[chunk]] - scores[rows, right]
        ranks[chunk] = target_ranks(scores, right)
    return Predictions(predicted, margins, ranks)


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
