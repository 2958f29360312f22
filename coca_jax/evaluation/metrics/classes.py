"""Scores of classes against the right ones: predictions, accuracy by class, confusions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from coca_jax.evaluation.metrics import ranking


class ClassPredictions(NamedTuple):
    """A classifier's answers on M images."""

    predicted: np.ndarray  # int64 [M], the class with the highest score; of equal ones the first
    margins: np.ndarray  # float32 [M], by how much that score exceeds the right class's
    # int64 [M], how many other classes score at least as high as the right one (see `ranking`). Classes after it with the
    # same texts are the same question, and do not count.
    ranks: np.ndarray


def predict_classes(
    scores: np.ndarray, targets: np.ndarray, candidates: np.ndarray, first: np.ndarray
) -> ClassPredictions:
    """Compares scores with the right classes.

    >>> predict_classes(np.array([[0.1, 0.9]]), np.array([0]), np.arange(2), np.arange(2)).ranks
    array([1])

    Args:
      scores: [M, C], higher is better.
      targets: int [M], the right classes; or [M, K], filled up with -1: the best of them counts.
      candidates: int [C], the classes' numbers, ascending. Every target is among them.
      first: int [C], as `first_equal` gives it.
    """
    targets = targets if targets.ndim == 2 else targets[:, None]
    right = (targets[:, :, None] == candidates).any(axis=1)
    best = np.argmax(scores, axis=1)
    own = np.max(scores, axis=1, where=right, initial=-np.inf)
    margins = (scores[np.arange(len(scores)), best] - own).astype(np.float32)
    ranks = ranking.ranks(scores, right)
    if len(np.unique(first)) < len(first):
        ranks -= np.where(ranks < len(candidates), _later_copies(scores, right, first), 0)
    return ClassPredictions(candidates[best], margins, ranks)


def _later_copies(scores: np.ndarray, right: np.ndarray, first: np.ndarray) -> np.ndarray:
    """int64 [M]: classes that tie with the best right one for having its texts, and come after it."""
    own = np.argmax(np.where(right, scores, -np.inf), axis=1)[:, None]
    later = (first == first[own]) & ~right & (np.arange(len(first)) > own)
    return np.sum(later & ~(scores < np.take_along_axis(scores, own, axis=1)), axis=1)


def joined(parts: Sequence[ClassPredictions]) -> ClassPredictions:
    """The predictions of several lots of images as one."""
    return ClassPredictions(*map(np.concatenate, zip(*parts, strict=True)))


def first_of_each(targets: np.ndarray, count: int) -> np.ndarray:
    """The places of the first `count` rows of each class, ascending: int64; rows of the class -1 are left out.

    >>> first_of_each(np.array([1, 0, 1, -1, 1]), 2)
    array([0, 1, 2])
    """
    order = np.argsort(targets, kind="stable")
    ordered = targets[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.sort(order[(rank < count) & (ordered >= 0)])


def first_equal(texts: Iterable[Sequence[str]]) -> np.ndarray:
    """int64 [C]: for each class' texts, the place of the first class with the same ones."""
    places: dict[tuple[str, ...], int] = {}
    return np.array([places.setdefault(tuple(own), i) for i, own in enumerate(texts)], np.int64)


def member_probabilities(similarities: np.ndarray, members: Sequence[Sequence[int]], temperature: float) -> np.ndarray:
    """Probabilities of classes that comprise several things, float64 [M, C]: p(c) = Σ_{n ∈ c} softmax(s / τ)_n.

    Args:
      similarities: s, [M, N], of the images and each thing.
      members: of each class, which of the N things it comprises; at least one.
      temperature: τ of the model's training; it decides how much the second best member counts beside the best.
    """
    columns, starts = np.concatenate(members), np.cumsum([0, *map(len, members)])[:-1]
    shares = np.exp((similarities - similarities.max(axis=1, keepdims=True)).astype(np.float64) / temperature)
    return np.add.reduceat(shares[:, columns], starts, axis=1) / shares.sum(axis=1, keepdims=True)


def per_class_accuracy(targets: np.ndarray, right: np.ndarray, classes: int) -> np.ndarray:
    """float64 [C]: of the images of each class the share that is right; NaN for a class without images."""
    counts = np.bincount(targets, minlength=classes)
    hits = np.bincount(targets, weights=right, minlength=classes)
    return np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)


def confusion_matrix(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [C, C]: how many images of class `row` were taken for class `column`."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(targets: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int]]:
    """(right class, predicted class, count) of the mistakes, the most frequent first; memory does not grow with C².

    >>> confused_pairs(np.array([0, 0, 1]), np.array([1, 1, 1]))
    [(0, 1, 2)]
    """
    wrong = np.flatnonzero(targets != predicted)
    counts = Counter(zip(targets[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    return [(*pair, count) for pair, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]
