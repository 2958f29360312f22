"""Visual question answering: VQA's accuracy of the classifier's answers, and of those generated in words."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics.vqa_accuracy import vqa_accuracy
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult
from coca_jax.pages.blocks import Block, Heading, Table, Tile
from coca_jax.pages.charts import percent


class Vqa:
    """The task; `vqa_accuracy` is that of the classifier, `vqa_accuracy_in_words` that of generated answers (arXiv 1505.00468)."""

    branch: ClassVar[str] = "head"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(head=True, answers=True)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        names = predictions.classes
        chosen = [names[number] for number in predictions.head_probabilities.argmax(axis=1)]
        ids = [dataset.question_ids[row] for row in predictions.rows] if dataset.question_ids else []
        submission = dict(zip(ids, chosen, strict=True)) if ids else {}
        if not dataset.answers:  # questions for a server, which keeps the answers
            return TaskResult({}, submissions={"answers": submission} if submission else {})
        answers = [dataset.answers[row] for row in predictions.rows]
        scores = {
            "vqa_accuracy": np.array([vqa_accuracy(*one) for one in zip(chosen, answers, strict=True)]),
            "vqa_accuracy_in_words": np.array(
                [vqa_accuracy(*one) for one in zip(predictions.answers, answers, strict=True)]
            ),
        }
        kinds = np.array([dataset.kinds[row] for row in predictions.rows] if dataset.kinds else [""] * len(chosen))
        constant = _best_constants(answers, kinds)
        metrics, baselines = _by_kind(scores, kinds), _by_kind({"vqa_accuracy": constant}, kinds)
        baselines["vqa_accuracy_in_words"] = baselines["vqa_accuracy"]
        first, in_words = metrics["vqa_accuracy"], metrics["vqa_accuracy_in_words"]
        prior = baselines["vqa_accuracy"]
        tiles = [
            Tile("Answers", first, f"by the classifier, {len(names):,} answers", prior, "best answer of each type"),
            Tile("Answers", in_words, "generated in words", prior, "best answer of each type"),
        ]
        return TaskResult(
            metrics=metrics,
            baselines=baselines,
            tiles=tiles,
            blocks=_table(metrics, baselines, kinds),
            image_texts=ImageTexts("answered", chosen, scores["vqa_accuracy"] >= 0.5),
            submissions={"answers": submission} if submission else {},
        )


def _best_constants(answers: Sequence[Sequence[str]], kinds: np.ndarray) -> np.ndarray:
    """The scores [M] of always giving the most frequent answer of the question's type."""
    frequent = {
        kind: Counter(answer for own, k in zip(answers, kinds, strict=True) if k == kind for answer in own).most_common(
            1
        )
        for kind in set(kinds)
    }
    return np.array([vqa_accuracy(frequent[kind][0][0], own) for own, kind in zip(answers, kinds, strict=True)])


def _by_kind(scores: dict[str, np.ndarray], kinds: np.ndarray) -> dict[str, float]:
    """Means of all questions, and `<metric>_<kind>` of those of each type."""
    means = {name: float(values.mean()) for name, values in scores.items()}
    for kind in sorted(set(kinds) - {""}):
        name = "".join(c if c.isalnum() else "_" for c in kind)
        means |= {f"{metric}_{name}": float(values[kinds == kind].mean()) for metric, values in scores.items()}
    return means


def _table(metrics: dict[str, float], baselines: dict[str, float], kinds: np.ndarray) -> list[Block]:
    rows = []
    for kind in sorted(set(kinds) - {""}):
        name = "".join(c if c.isalnum() else "_" for c in kind)
        keys = (f"vqa_accuracy_{name}", f"vqa_accuracy_in_words_{name}")
        shares = [percent(metrics[key]) for key in keys] + [percent(baselines[keys[0]])]
        rows.append((kind, *shares, f"{np.sum(kinds == kind):,}"))
    if not rows:
        return []
    columns = ("Type", "Classifier", "In words", "Best fixed answer", "Questions")
    return [Heading("By type of question", ""), Table(columns, rows, "VQA accuracy by type of question")]
