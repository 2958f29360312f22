"""Classification by the head of an adapted run: of images, clips, images with a text, and pairs of images with a text."""

from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult
from coca_jax.evaluation.tasks.classification import classification_result


class HeadClassification:
    """The task: accuracy of the head's most likely class, in all and for each kind of text."""

    branch: ClassVar[str] = "head"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(head=True)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        (task,) = dataset.classifications
        places, targets = predictions.part(task)
        candidates = task.candidate_classes
        scores = predictions.head_probabilities[places]
        answer = classes.predict_classes(scores, targets, candidates, classes.first_equal(task.candidate_texts))
        result = classification_result(dataset, predictions, [answer], "accuracy", "by the head")
        majority = float(np.bincount(targets[:, 0]).max() / max(1, len(targets))) if len(targets) else float("nan")
        right = predictions.head_probabilities.argmax(axis=1)[places] == targets[:, 0]
        by_kind = {}
        if dataset.kinds:
            kinds = np.array([dataset.kinds[row] for row in predictions.rows[places]])
            by_kind = {f"accuracy_{kind}": float(right[kinds == kind].mean()) for kind in sorted(set(kinds))}
        shown = [task.labels[number] for number in predictions.head_probabilities.argmax(axis=1)]
        marks = np.zeros(len(shown), bool)
        marks[places] = right
        return TaskResult(
            metrics={**result.metrics, **by_kind},
            baselines={**result.baselines, "accuracy": majority},
            tiles=result.tiles,
            blocks=result.blocks,
            notes=result.notes,
            image_texts=ImageTexts("predicted", shown, marks),
        )
