"""Captioning: generated captions against the references, by n-grams, and by meaning where the dataset has a grammar."""

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import ClassVar

import numpy as np

from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics.captions import scores
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult, caption_counts
from coca_jax.pages.blocks import Block, Heading, Table, Text, Tile
from coca_jax.pages.charts import percent


class Captioning:
    """The task."""

    branch: ClassVar[str] = "captioning"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(captions=True)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        generated, captions = list(predictions.captions), [dataset.captions[row] for row in predictions.rows]
        ids = [dataset.image_ids[row] for row in predictions.rows] if dataset.image_ids else []
        submissions = {"captions": dict(zip(ids, generated, strict=True))} if ids else {}
        if not any(text for own in captions for text in own):  # captions for a server, which keeps the references
            return TaskResult({}, submissions=submissions)
        keys = [{dataset.meaning(text) for text in own} for own in captions]
        right = np.array([dataset.meaning(text) in own for text, own in zip(generated, keys, strict=True)], bool)
        metrics: dict[str, float] = {}
        baselines: dict[str, float] = {}
        tiles: list[Tile] = []
        if dataset.grammar is not None:
            parsed = [dataset.grammar(text) is not None for text in generated]
            equivalent, constant = float(np.mean(right)), constant_answer(keys)
            metrics = {"caption_equivalent": equivalent, "caption_parsed": float(np.mean(parsed))}
            baselines = {"caption_equivalent": constant}
            tiles = [Tile("Captions right", equivalent, "same meaning as the truth", constant, "best fixed caption")]
        metrics["caption_exact"] = exact_share(generated, captions)
        by_reference, notes = reference_scores(generated, captions, dataset.config.captioning.scores)
        return TaskResult(
            metrics={**caption_counts(dataset, predictions.rows), **metrics, **by_reference},
            baselines=baselines,
            tiles=tiles,
            blocks=_blocks(metrics, by_reference),
            notes=notes,
            # If no caption is right, as with free descriptions, then to mark each as wrong tells nothing.
            image_texts=[ImageTexts("generated", generated, right if dataset.grammar or right.any() else None)],
            submissions=submissions,
        )


def exact_share(generated: Sequence[str], captions: Sequence[Sequence[str]]) -> float:
    """The share of generated captions that are one of their image's, word for word up to spacing."""
    words = [[true.split() for true in own] for own in captions]
    return float(np.mean([text.split() in own for text, own in zip(generated, words, strict=True)]))


def constant_answer(meanings: Sequence[set[Hashable]]) -> float:
    """The share of images for which the best single answer is right: the baseline of a model that does not look."""
    counts = Counter(meaning for own in meanings for meaning in own)
    return max(counts.values(), default=0) / len(meanings)


def reference_scores(
    generated: Sequence[str], captions: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """The scores `caption_bleu_4`, `caption_cider`, … of these `names`, and a sentence for each that fails here."""
    java, notes = [name for name in names if name in scores.JAVA], []
    values = scores.score(generated, captions, [name for name in names if name not in java])

    def of_java() -> bytes:
        found: dict[str, float] = {}
        failures = []
        for name in java:
            try:
                found |= scores.score(generated, captions, [name])
            except CocaError as error:  # a failure of Java must not cost the other scores
                failures.append(str(error))
        return json.dumps([found, failures]).encode()

    if java:  # on one host alone, for it takes long and much memory; hosts need not all have it
        more, notes = json.loads(hosts.from_first(of_java))
        values |= more
    return {f"caption_{name}": value for name, value in values.items()}, notes


def _blocks(metrics: dict[str, float], by_reference: dict[str, float]) -> list[Block]:
    labels = {"caption_exact": "word for word as a reference", "caption_parsed": "well-formed"}
    shares = [f"{label}: {percent(metrics[key])}" for key, label in labels.items() if key in metrics]
    blocks: list[Block] = [Text(f"Generated captions {', '.join(shares)}.")]
    if by_reference:
        names = [key.removeprefix("caption_").replace("_", "-").upper() for key in by_reference]
        head = ["CIDEr" if name == "CIDER" else name for name in names]
        row = ["Score", *(f"{100 * value:.1f}" for value in by_reference.values())]
        blocks.append(Heading("Generated captions against the references", "Times 100, as papers print them."))
        blocks.append(Table(("", *head), [row], "Caption scores"))
    return blocks
