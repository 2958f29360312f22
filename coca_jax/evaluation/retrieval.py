"""Retrieval between texts and images, or videos: R@k both ways, with several right answers per query.

The published protocols count a caption as right for its own image alone, whatever it says: `caption_pool` gives their
labels. COCO: the 5,000 pictures of Karpathy's test split, Flickr30k: his 1,000, five captions each; MSR-VTT: 2,990 test
clips with twenty captions each, or the 1,000 pairs of the split "1k-A".
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation.meaning import NO_LABEL
from coca_jax.evaluation.metrics import ranking
from coca_jax.evaluation.metrics.mutual_ranks import mutual_ranks

RECALL_AT = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class RetrievalScores:
    """What `retrieval` finds.

    Attributes:
      metrics: `image_to_text_r1` … `text_to_image_r10` as fractions; `image_to_text_median_rank`, `…_mean_rank` and the
        same of text_to_image: of the best right answer, 1 the first.
      chance: what a random order of the same pool would reach, for the fractions.
    """

    metrics: dict[str, float]
    chance: dict[str, float]


def retrieval(
    embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    labels: np.ndarray,
    text_labels: np.ndarray,
    kind: str = "image",
) -> RetrievalScores:
    """R@1, R@5 and R@10: the share of queries with at least one right answer among the first k.

    Ties count against the model (see `ranking`). Memory grows with M + T alone (see `mutual_ranks`).

    Args:
      embeddings: float32 [M, E], L2-normalised, of images or videos.
      text_embeddings: float32 [T, E], L2-normalised.
      labels: int [M], or [M, K] for images with several meanings, filled up with NO_LABEL.
      text_labels: int [T], at least 0; an image and a text are right for each other iff the text's label is among
        the image's.
      kind: what the texts are compared with; "video" gives keys such as `video_to_text_r1`.
    """
    labels = labels[:, None] if labels.ndim == 1 else labels
    of_images, of_texts = mutual_ranks(embeddings, text_embeddings, labels, text_labels[:, None])
    metrics, chance = {}, {}
    ways = (
        (f"{kind}_to_text", of_images, _right_texts(labels, text_labels), len(text_labels)),
        (f"text_to_{kind}", of_texts, _right_images(labels, text_labels), len(labels)),
    )
    for way, ranks, right_counts, candidates in ways:
        for k in RECALL_AT:
            metrics[f"{way}_r{k}"] = ranking.hit_rate(ranks, k)
            chance[f"{way}_r{k}"] = ranking.chance_hit_rate(right_counts, candidates, k)
        metrics[f"{way}_median_rank"] = float(np.median(ranks) + 1) if len(ranks) else float("nan")
        metrics[f"{way}_mean_rank"] = float(np.mean(ranks) + 1) if len(ranks) else float("nan")
    return RetrievalScores(metrics, chance)


def caption_pool(captions: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Every caption a candidate of its own, right for its own image or video alone: the published protocols.

    Args:
      captions: for each of M images its captions.

    Returns:
      The T texts, and the labels that `retrieval` takes: int64 [M] and int64 [T].
    """
    owners = [image for image, own in enumerate(captions) for _ in own]
    return [text for own in captions for text in own], np.arange(len(captions)), np.array(owners, np.int64)


def _right_texts(labels: np.ndarray, text_labels: np.ndarray) -> np.ndarray:
    """How many of the texts are right for each image: int64 [M]."""
    known, counts = np.unique(text_labels, return_counts=True)
    if not len(known):
        return np.zeros(len(labels), np.int64)
    distinct = np.sort(labels, axis=1)
    repeated = np.diff(distinct, axis=1, prepend=distinct[:, :1] - 1) == 0
    places = np.minimum(np.searchsorted(known, distinct), len(known) - 1)
    return np.where((known[places] == distinct) & ~repeated, counts[places], 0).sum(axis=1)


def _right_images(labels: np.ndarray, text_labels: np.ndarray) -> np.ndarray:
    """How many of the images are right for each text: int64 [T]."""
    images = np.repeat(np.arange(len(labels)), labels.shape[1])
    pairs = np.unique(np.stack([images, labels.ravel()], axis=1), axis=0)
    known, counts = np.unique(pairs[pairs[:, 1] != NO_LABEL, 1], return_counts=True)
    if not len(known):
        return np.zeros(len(text_labels), np.int64)
    places = np.minimum(np.searchsorted(known, text_labels), len(known) - 1)
    return np.where(known[places] == text_labels, counts[places], 0)
