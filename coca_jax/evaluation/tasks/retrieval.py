"""Retrieval between texts and images, or videos: R@k both ways, with several right answers per query.

The published protocols (`match = "image"`) count a caption as right for its own image alone. COCO: the
5,000 images of Karpathy's test split, Flickr30k: his 1,000, five captions each; MSR-VTT: 2,990 test clips with twenty
captions each, or the 1,000 pairs of the split "1k-A".
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import ClassVar, Literal

import numpy as np

from coca_jax.embedding_index.nearest import nearest
from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import ranking
from coca_jax.evaluation.metrics.ranking import NO_LABEL
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult, caption_counts, shown_images
from coca_jax.pages.blocks import Block, Card, CardLine, Cell, Gallery, Heading, Table, Tile
from coca_jax.pages.charts import percent

RECALL_AT = (1, 5, 10)
_SEARCH_RESULTS = 8


@dataclasses.dataclass(frozen=True)
class CaptionPool:
    """The T texts that images are retrieved from and by; right are those whose label is among the image's."""

    texts: list[str]
    text_labels: np.ndarray  # int64 [T], at least 0
    image_labels: np.ndarray  # int64 [M, K], filled up with NO_LABEL

    @classmethod
    def by_meaning(cls, dataset: EvaluationDataset, captions: Sequence[Sequence[str]]) -> "CaptionPool":
        """Every caption of every image, identical strings once; a text is right for all images of its meaning.

        A copy carries nothing further, and copies of a wrong caption would push the right one down several ranks.
        """
        ids: dict[Hashable, int] = {}
        labels: dict[str, int] = {}  # of each distinct text
        for text in (text for own in captions for text in own):
            if text not in labels:
                labels[text] = ids.setdefault(dataset.meaning(text), len(ids))
        rows = [sorted({labels[text] for text in own}) for own in captions]
        image_labels = np.full((len(rows), max(map(len, rows), default=0)), NO_LABEL, np.int64)
        for row, own in zip(image_labels, rows, strict=True):
            row[: len(own)] = own
        return cls(list(labels), np.fromiter(labels.values(), np.int64, len(labels)), image_labels)

    @classmethod
    def by_image(cls, captions: Sequence[Sequence[str]]) -> "CaptionPool":
        """Every caption a candidate of its own, right for its own image alone: the published protocols."""
        owners = [image for image, own in enumerate(captions) for _ in own]
        texts = [text for own in captions for text in own]
        return cls(texts, np.array(owners, np.int64), np.arange(len(captions))[:, None])


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """The task; `kind` names what texts are compared with, "image" or "video", and is part of the metrics' keys."""

    kind: Literal["image", "video"] = "image"
    branch: ClassVar[str] = "contrastive"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        texts = [text for own in _ranked_captions(dataset, range(len(dataset.captions))) for text in own]
        return Needs(embeddings=True, texts=tuple(dict.fromkeys([*texts, *dataset.queries])))

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        captions = _ranked_captions(dataset, predictions.rows.tolist())
        meanings = CaptionPool.by_meaning(dataset, captions)
        by_image = dataset.config.retrieval.match == "image"
        pool = CaptionPool.by_image(captions) if by_image else meanings
        images_ME, texts_TE = predictions.image_embeddings, predictions.embedded(pool.texts)
        metrics, baselines = retrieval_metrics(images_ME, texts_TE, pool.image_labels, pool.text_labels, self.kind)
        best = nearest(images_ME, [texts_TE], 1)[0][:, 0]
        right = (pool.image_labels == pool.text_labels[best][:, None]).any(axis=1)
        tiles, table = self._shown(metrics, baselines)
        return TaskResult(
            metrics={**caption_counts(dataset, predictions.rows), "texts": len(pool.texts), **metrics},
            baselines=baselines,
            tiles=tiles,
            blocks=[table, *_searches(dataset, predictions, meanings)],
            image_texts=[ImageTexts("retrieved", [pool.texts[i] for i in best], right)],
        )

    def _shown(self, metrics: dict[str, float], baselines: dict[str, float]) -> tuple[list[Tile], Table]:
        """The metrics for the report."""
        tiles: list[Tile] = []
        rows: list[list[str | Cell]] = []
        image = "image" if self.kind == "image" else "clip"
        for way, answer in ((f"{self.kind}_to_text", "caption"), (f"text_to_{self.kind}", image)):
            label, keys = way.replace("_", " ").capitalize(), [f"{way}_r{k}" for k in RECALL_AT]
            tiles.append(Tile(label, metrics[keys[0]], f"right {answer} ranked first", baselines[keys[0]]))
            rows.append([label, *(Cell(percent(metrics[key]), f"chance {percent(baselines[key])}") for key in keys)])
        return tiles, Table(("Right answer among the first", *map(str, RECALL_AT)), rows, "Retrieval")


def retrieval_metrics(
    embeddings: np.ndarray, text_embeddings: np.ndarray, labels: np.ndarray, text_labels: np.ndarray, kind: str
) -> tuple[dict[str, float], dict[str, float]]:
    """R@1, R@5 and R@10, the share of queries with at least one right answer among the first k; and ranks.

    Args:
      embeddings, text_embeddings: float32 [M, E] of images or videos, and [T, E], L2-normalised.
      labels, text_labels: see `CaptionPool`.
      kind: "image" or "video".

    Returns:
      metrics: `image_to_text_r1` … `text_to_image_r10` as fractions; `image_to_text_median_rank`, `…_mean_rank` and the
        same of text_to_image: of the best right answer, 1 the first. Ties count against the model. NaN without queries.
      baselines: the fractions that a random order of the same pool would reach.
    """
    metrics, baselines = {}, {}
    images, texts = (embeddings, labels), (text_embeddings, text_labels[:, None])
    ways = ((f"{kind}_to_text", images, texts), (f"text_to_{kind}", texts, images))
    for way, (queries, own), (candidates, other) in ways:
        ranks, right_counts = ranking.label_ranks(queries, candidates, own, other)
        for k in RECALL_AT:
            metrics[f"{way}_r{k}"] = ranking.hit_rate(ranks, k)
            baselines[f"{way}_r{k}"] = ranking.chance_hit_rate(right_counts, len(candidates), k)
        metrics[f"{way}_median_rank"] = float(np.median(ranks) + 1) if len(ranks) else float("nan")
        metrics[f"{way}_mean_rank"] = float(np.mean(ranks) + 1) if len(ranks) else float("nan")
    return metrics, baselines


def _ranked_captions(dataset: EvaluationDataset, rows: Sequence[int]) -> list[Sequence[str]]:
    """The first captions of each image; all of them are the references of generated captions."""
    most = dataset.config.retrieval.captions_per_image or None
    return [dataset.captions[row][:most] for row in rows]


def _searches(dataset: EvaluationDataset, predictions: Predictions, pool: CaptionPool) -> list[Block]:
    """The images that rank first for each of the dataset's queries, with those marked that mean the same."""
    if not dataset.queries:
        return []
    labels = {dataset.meaning(text): label for text, label in zip(pool.texts, pool.text_labels, strict=True)}
    best, _ = nearest(predictions.embedded(dataset.queries), [predictions.image_embeddings], _SEARCH_RESULTS)
    blocks: list[Block] = [Heading("Text-to-image search", "The held-out images that rank first, best on the left.")]
    for query, places in zip(dataset.queries, best, strict=True):
        label = labels.get(dataset.meaning(query))
        match = (pool.image_labels == label).any(axis=1) if label is not None else np.zeros(len(predictions.rows), bool)
        rows = predictions.rows[places]
        cards = [
            Card(images, [CardLine(mark=True, note="match")] if match[place] else [], dataset.captions[row][0])
            for images, place, row in zip(shown_images(dataset, rows), places, rows, strict=True)
        ]
        count = "no image of the dataset matches"
        if match.any():
            count = f"{match[places].sum():,} of {match.sum():,} matching images among the first {len(places)}"
        blocks.append(Gallery(f"“{query}”", cards, count, layout="strip"))
    return blocks
