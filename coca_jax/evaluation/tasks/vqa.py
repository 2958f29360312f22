"""Visual question answering: VQA's accuracy of the classifier's answers, and of those generated in words."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics.vqa_accuracy import vqa_accuracy
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult, by_kind, kinds_table
from coca_jax.pages.blocks import Tile

_RIGHT = 0.5  # VQA accuracy from which the report marks an answer as right


class Vqa:
    """The task; `vqa_accuracy` is that of the classifier, `vqa_accuracy_in_words` that of generated answers (arXiv 1505.00468)."""

    branch: ClassVar[str] = "head"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(head=True, answers=bool(dataset.answers))

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        names, probabilities = predictions.classes, predictions.head_probabilities
        chosen = [names[number] for number in probabilities.argmax(axis=1)]
        shown = ImageTexts("answered", chosen, None, probabilities=probabilities.max(axis=1))
        ids = [dataset.question_ids[row] for row in predictions.rows] if dataset.question_ids else []
        submissions = {"answers": dict(zip(ids, chosen, strict=True))} if ids else {}
        if not dataset.answers:  # questions for a server, which keeps the answers
            return TaskResult({}, image_texts=[shown], submissions=submissions)
        answers = [dataset.answers[row] for row in predictions.rows]
        scores = {
            "vqa_accuracy": _scores(chosen, answers),
            "vqa_accuracy_in_words": _scores(predictions.answers, answers),
        }
        kinds = [dataset.kinds[row] for row in predictions.rows] if dataset.kinds else [""] * len(chosen)
        metrics = by_kind(scores, kinds)
        baselines = by_kind({"vqa_accuracy": _scores(_frequent_answers(answers, kinds), answers)}, kinds)
        prior = baselines["vqa_accuracy_in_words"] = baselines["vqa_accuracy"]
        details = (f"by the classifier, {len(names):,} answers", "generated in words")
        tiles = [
            Tile("VQA accuracy", metrics[metric], detail, prior, "best answer of each kind")
            for metric, detail in zip(scores, details, strict=True)
        ]
        right = {metric: values >= _RIGHT for metric, values in scores.items()}
        shown = dataclasses.replace(shown, right=right["vqa_accuracy"], truths=[_counted(own) for own in answers])
        columns = {
            "Classifier": ("vqa_accuracy", metrics),
            "In words": ("vqa_accuracy_in_words", metrics),
            "Best fixed answer": ("vqa_accuracy", baselines),
        }
        return TaskResult(
            metrics=metrics,
            baselines=baselines,
            tiles=tiles,
            blocks=kinds_table(columns, kinds),
            image_texts=[shown, ImageTexts("in words", predictions.answers, right["vqa_accuracy_in_words"])],
            submissions=submissions,
        )


def _scores(given: Sequence[str], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """The VQA accuracy of each question's answer, float64 [M]."""
    return np.array([vqa_accuracy(*one) for one in zip(given, answers, strict=True)])


def _frequent_answers(answers: Sequence[Sequence[str]], kinds: Sequence[str]) -> list[str]:
    """For each question the most frequent answer of its kind: the baseline of a model that does not look."""
    counts: dict[str, Counter[str]] = {}
    for kind, own in zip(kinds, answers, strict=True):
        counts.setdefault(kind, Counter()).update(own)
    best = {kind: count.most_common(1)[0][0] for kind, count in counts.items()}
    return [best[kind] for kind in kinds]


def _counted(answers: Sequence[str]) -> str:
    """People's answers in one text.

    >>> _counted(["red", "orange", "red"])
    'red ×2, orange ×1'
    """
    counts = Counter(answers).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{answer} ×{count}" for answer, count in counts)
