"""Classification by the head of an adapted run: of images, clips, images with a text, and pairs of images with a text."""

from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.metrics.classes import ClassPredictions
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, TaskResult, by_kind, kinds_table
from coca_jax.evaluation.tasks.classification import classification_result, metric_name


class HeadClassification:
    """The task: accuracy of the head's most likely class, in all and for each kind of example; and of coarser classes, each
    as probable as the head's classes that it comprises together."""

    branch: ClassVar[str] = "head"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(head=True)

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        answers = [_answers(task, predictions) for task in dataset.classifications]
        result = classification_result(dataset, predictions, answers, "accuracy", "by the head")
        majorities = [_majority(predictions.part(task)[1]) for task in dataset.classifications]
        baselines = {
            metric_name("accuracy", task): most for task, most in zip(dataset.classifications, majorities, strict=True)
        }
        (places, _), probabilities = predictions.part(dataset.classifications[0]), predictions.head_probabilities
        right = answers[0].ranks < 1
        marks, known = np.zeros(len(probabilities), bool), np.zeros(len(probabilities), bool)
        marks[places], known[places] = right, True
        kinds = [dataset.kinds[row] for row in predictions.rows[places]] if dataset.kinds else [""] * len(places)
        metrics = {**result.metrics, **(by_kind({"accuracy": right}, kinds) if len(right) else {})}
        unknown = len(probabilities) - len(places)
        of_others = f"{unknown:,} of {len(probabilities):,} images have a class that is not among the run's"
        labels = [predictions.classes[number] for number in probabilities.argmax(axis=1)]
        return TaskResult(
            metrics=metrics,
            baselines={**result.baselines, **baselines},
            tiles=[
                tile._replace(baseline=most, baseline_name="most frequent class")
                for tile, most in zip(result.tiles, majorities, strict=True)
            ],
            blocks=[*kinds_table({"Accuracy": ("accuracy", metrics)}, kinds), *result.blocks],
            notes=[*result.notes, *([f"{of_others}: they count for the other fields alone"] if unknown else [])],
            image_texts=[ImageTexts("predicted", labels, marks, known=known, probabilities=probabilities.max(axis=1))],
        )


def _answers(task: Classification, predictions: Predictions) -> ClassPredictions:
    """The head's answers: by its own classes, or by coarser ones, of which each has the sum of its members' probabilities."""
    places, targets = predictions.part(task)
    scores, texts = predictions.head_probabilities[places], task.candidate_texts
    if task.members:
        numbers = {name: number for number, name in enumerate(predictions.classes)}
        texts = [tuple(name for name in own if name in numbers) for own in texts]
        scores = np.stack([scores[:, [numbers[name] for name in own]].sum(axis=1) for own in texts], axis=1)
    return classes.predict_classes(scores, targets, task.candidate_classes, classes.first_equal(texts))


def _majority(targets: np.ndarray) -> float:
    """The share of the most frequent class of targets [M, K], filled up with -1; NaN if there is no image."""
    return float(np.bincount(targets[targets >= 0]).max() / len(targets)) if len(targets) else float("nan")
