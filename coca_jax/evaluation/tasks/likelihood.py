"""Zero-shot classification by the likelihood of captions: the class whose caption is most probable, given the image."""

import dataclasses
from typing import ClassVar

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import Branch, TaskResult
from coca_jax.evaluation.tasks.classification import classification_result


@dataclasses.dataclass(frozen=True)
class LikelihoodClassification:
    """The task."""

    branch: ClassVar[Branch] = "captioning"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(likelihoods=tuple(dataset.classifications))

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        answers = []
        for task in dataset.classifications:
            scores, (_, targets), candidates = (
                predictions.log_likelihoods[task.name],
                predictions.part(task),
                task.candidate_classes,
            )
            first = classes.first_equal((task.labels[number],) for number in candidates)
            answers.append(classes.predict_classes(scores, targets, candidates, first))
        return classification_result(dataset, predictions, answers, "likelihood", "by caption likelihood")
