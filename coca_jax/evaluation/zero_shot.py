"""Zero-shot classification as in CLIP (arXiv 2103.00020, §3.1.4): a classifier made of texts."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from coca_jax.embedding_index.nearest import block_size, filled, similarities
from coca_jax.evaluation.dataset import Classification
from coca_jax.evaluation.metrics import ranking

_CLASSES = 8_192  # of a block of scores
_FEWEST = 16  # images of one; a product of fewer may round differently


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What the classifier says of M images.

    Attributes:
      predicted: int64 [M], the class with the highest score; of equal ones the first.
      margins: float32 [M], by how much that score exceeds the right class's, 0 where it is the right class.
      ranks: int64 [M], how many other classes score at least as high as the right one (see `ranking`); those after it
        with the same texts are the same question, and do not count.
    """

    predicted: np.ndarray
    margins: np.ndarray
    ranks: np.ndarray


def predict(
    image_embeddings: np.ndarray,
    classifier: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray | None = None,
    first: np.ndarray | None = None,
    pool: Callable[[np.ndarray], np.ndarray] = lambda scores: scores,
) -> Predictions:
    """Scores images [M, E] against a classifier [C, E], a chunk of images at a time; see `from_scores`.

    `pool` makes scores of classes out of those of a classifier's rows, where these are something else.
    """
    parts = []
    for chunk in ranking.query_chunks(len(image_embeddings), len(classifier)):
        scores = pool(_scores(image_embeddings[chunk], classifier))
        parts.append(from_scores(scores, targets[chunk], candidates, first))
    nothing = np.zeros((0, len(classifier)), np.float32)
    return joined(parts or [from_scores(pool(nothing), targets, candidates, first)])


def probabilities_of(members: Sequence[Sequence[int]], temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    """Similarities [M, N] to probabilities of classes, float64 [M, C]: the sums of those of their members.

    Args:
      members: of each class, which of the N things it comprises; at least one.
      temperature: that the model was trained with; it decides how much the second best member counts beside the best.
    """
    columns, starts = np.concatenate(members), np.cumsum([0, *map(len, members)])[:-1]

    def pool(scores: np.ndarray) -> np.ndarray:
        shares = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64) / temperature)
        return np.add.reduceat(shares[:, columns], starts, axis=1) / shares.sum(axis=1, keepdims=True)

    return pool


def _scores(images: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """[M, E], [C, E] -> float32 [M, C], in full float32 and in blocks of one shape, as `mutual_ranks` has them.

    So equal classes tie wherever they stand, which a product of any shape does not grant.
    """
    rows, size = filled(images, max(len(images), _FEWEST)), block_size(len(classifier), _CLASSES)
    blocks = (classifier[start : start + size] for start in range(0, len(classifier), size))
    found = [np.asarray(_similarities(rows, filled(block, size)))[: len(images), : len(block)] for block in blocks]
    return np.concatenate(found, axis=1)


_similarities = jax.jit(similarities)


def joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several lots of images as one."""
    return Predictions(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Predictions))
    )


def from_scores(
    scores: np.ndarray, targets: np.ndarray, candidates: np.ndarray | None = None, first: np.ndarray | None = None
) -> Predictions:
    """Compares scores with what is right.

    Args:
      scores: [M, C], higher is better.
      targets: int [M], the right classes; or [M, K], filled up with -1: the best of them counts.
      candidates: int [C], the classes' numbers, ascending; None: 0 to C - 1. Every target is among them.
      first: int [C], as `same_texts` gives it; None: all texts differ.
    """
    targets = targets.reshape(len(targets), -1)
    candidates = np.arange(scores.shape[1]) if candidates is None else candidates
    right = (targets[:, :, None] == candidates).any(axis=1)
    best = np.argmax(scores, axis=1)
    own = np.max(scores, axis=1, where=right, initial=-np.inf)
    margins = (scores[np.arange(len(scores)), best] - own).astype(np.float32)
    ranks = ranking.ranks(scores, right)
    if first is not None and len(np.unique(first)) < len(first):
        ranks -= np.where(ranks < len(candidates), _later_copies(scores, right, first), 0)
    return Predictions(candidates[best], margins, ranks)


def _later_copies(scores: np.ndarray, right: np.ndarray, first: np.ndarray) -> np.ndarray:
    """int64 [M]: classes that tie with the best right one for having its texts, and come after it."""
    own = np.argmax(np.where(right, scores, -np.inf), axis=1)[:, None]
    later = (first == first[own]) & ~right & (np.arange(len(first)) > own)
    return np.sum(later & ~(scores < np.take_along_axis(scores, own, axis=1)), axis=1)


def same_texts(texts: Iterable[Sequence[str]]) -> np.ndarray:
    """int64 [C]: for each class' texts, the place of the first class with the same ones."""
    places: dict[tuple[str, ...], int] = {}
    return np.array([places.setdefault(tuple(own), i) for i, own in enumerate(texts)], np.int64)


def texts_of(task: Classification) -> list[tuple[str, ...]]:
    """The names of each class that can be answered, or of its members."""
    several = task.members or task.synonyms
    return [tuple(several[i]) if several else (task.labels[i],) for i in candidates_of(task)]


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
