"""Classification by the head of an adapted run: of images, clips, images with a text, and pairs of images with a text."""

from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult, by_kind, kinds_table
from coca_jax.evaluation.tasks.classification import classification_result


class HeadClassification:
    """The task: accuracy of the head's most likely class, in all and for each kind of example."""

    branch: ClassVar[str] = "head"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(head=True)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        (task,) = dataset.classifications
        places, targets = predictions.part(task)
        probabilities, candidates = predictions.head_probabilities, task.candidate_classes
        first = classes.first_equal(task.candidate_texts)
        answer = classes.predict_classes(probabilities[places], targets, candidates, first)
        result = classification_result(dataset, predictions, [answer], "accuracy", "by the head")
        majority = float(np.bincount(targets[:, 0]).max() / len(targets)) if len(targets) else float("nan")
        right, marks = answer.ranks < 1, np.zeros(len(probabilities), bool)
        marks[places] = right
        kinds = [dataset.kinds[row] for row in predictions.rows[places]] if dataset.kinds else [""] * len(places)
        metrics = {**result.metrics, **by_kind({"accuracy": right}, kinds)}
        labels = [task.labels[number] for number in probabilities.argmax(axis=1)]
        return TaskResult(
            metrics=metrics,
            baselines={**result.baselines, "accuracy": majority},
            tiles=[tile._replace(baseline=majority, baseline_name="most frequent class") for tile in result.tiles],
            blocks=[*kinds_table({"Accuracy": ("accuracy", metrics)}, kinds), *result.blocks],
            notes=result.notes,
            image_texts=[ImageTexts("predicted", labels, marks, probabilities=probabilities.max(axis=1))],
        )
