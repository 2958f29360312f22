"""Zero-shot classification by the likelihood of captions: the class whose caption is most probable, given the image."""

from typing import ClassVar

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import classes
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import TaskResult
from coca_jax.evaluation.tasks.classification import classification_result


class LikelihoodClassification:
    """The task."""

    branch: ClassVar[str] = "captioning"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(likelihoods=tuple(dataset.classifications))

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        answers = []
        for task in dataset.classifications:
            candidates, (_, targets) = task.candidate_classes, predictions.part(task)
            first = classes.first_equal((task.labels[number],) for number in candidates)
            scores = predictions.log_likelihoods[task.name]
            answers.append(classes.predict_classes(scores, targets, candidates, first))
        return classification_result(dataset, predictions, answers, "likelihood", "by caption likelihood")
