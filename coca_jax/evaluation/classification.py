"""Zero-shot classification, by the contrastive embeddings or by the likelihood of captions: figures, and what errs."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.answers import Answers
from coca_jax.evaluation.classifiers import Classifiers
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.metrics import ranking

_TOP5_ABOVE, _TOP10_ABOVE = 10, 1_000  # classes; among fewer, so many guesses say little
_MISTAKES = 6
EMBEDDINGS, LIKELIHOOD = "zero_shot", "likelihood"  # what the metrics' keys begin with


@dataclasses.dataclass(frozen=True)
class ClassificationOutcome:
    """A zero-shot classification, image by image.

    Attributes:
      name: of the classification; `labels`: of its classes.
      targets, predicted: int [M], classes of the images that took part.
      accuracy: the share of them that is right; ties count as wrong, so it may be below what `predicted` gives; but of
        classes with the same texts the first is right, as an argmax has it.
      mistakes: a few wrong ones, as (image, right label, predicted label), the most confident first.
      way: EMBEDDINGS or LIKELIHOOD.
      per_class: float64 [C], the share of each class' images that is right; NaN without any. None: nobody asked.
      candidates: how many classes could be answered.
    """

    name: str
    labels: Sequence[str]
    targets: np.ndarray
    predicted: np.ndarray
    accuracy: float
    mistakes: Sequence[tuple[np.ndarray, str, str]]
    way: str = EMBEDDINGS
    per_class: np.ndarray | None = None
    candidates: int = 0

    @property
    def key(self) -> str:
        return f"{self.way}_{self.name}"


def equal_names(task: Classification) -> str:
    """A sentence on classes that no text tells apart; empty where there are none."""
    texts = zero_shot.texts_of(task)
    again = [texts[i][0] for i, first in enumerate(zero_shot.same_texts(texts)) if first < i]
    if not again:
        return ""
    verb = "class has" if len(again) == 1 else "classes have"
    return f"{len(again)} {verb} the name of another ({', '.join(again[:3])}): only the first of each can be right"


# A classification's outcome, its metrics, and what chance gives for some of them.
Found = tuple[ClassificationOutcome, dict[str, float], dict[str, float]]


def by_embeddings(held_out: EvaluationSet, task: Classification, answers: Answers, classifiers: Classifiers) -> Found:
    """The class whose texts are most similar to the image (CLIP, arXiv 2103.00020, §3.1.4).

    A class of several members is as probable as all of these together.
    """
    candidates, texts = zero_shot.candidates_of(task), zero_shot.texts_of(task)
    places, targets = answers.part(task)
    embeddings_ME, first = answers.embeddings_ME[places], zero_shot.same_texts(texts)
    if task.members:
        place = {name: i for i, name in enumerate(dict.fromkeys(name for own in texts for name in own))}
        things = dataclasses.replace(task, labels=list(place), synonyms=(), members=())
        things_NE = classifiers(things, held_out.long_text)
        pool = zero_shot.probabilities_of([[place[name] for name in own] for own in texts], classifiers.temperature)
        prediction = zero_shot.predict(embeddings_ME, things_NE, targets, candidates, first, pool)
    else:
        classifier_CE = classifiers(task, held_out.long_text)[candidates]
        prediction = zero_shot.predict(embeddings_ME, classifier_CE, targets, candidates, first)
    return _found(held_out, task, answers, prediction, EMBEDDINGS)


def by_likelihood(held_out: EvaluationSet, task: Classification, answers: Answers) -> Found:
    """The class whose caption is most likely, given the image."""
    return _found(held_out, task, answers, answers.likelihoods[task.name], LIKELIHOOD)


def _found(
    held_out: EvaluationSet, task: Classification, answers: Answers, prediction: zero_shot.Predictions, way: str
) -> Found:
    places, right = answers.part(task)
    right = right.reshape(len(right), -1)
    hit = (right == prediction.predicted[:, None]).any(axis=1)
    targets = np.where(hit, prediction.predicted, right[:, 0])
    classes, counts = len(zero_shot.candidates_of(task)), (right >= 0).sum(axis=1)
    key = f"{way}_{task.name}"
    metrics, chance = {key: ranking.hit_rate(prediction.ranks, 1)}, {key: ranking.chance_hit_rate(counts, classes, 1)}
    for k, above in ((5, _TOP5_ABOVE), (10, _TOP10_ABOVE if held_out.asked is not None else classes)):
        if classes > above:
            metrics[f"{key}_top{k}"] = ranking.hit_rate(prediction.ranks, k)
            chance[f"{key}_top{k}"] = ranking.chance_hit_rate(counts, classes, k)
    per_class = None
    if held_out.asked is not None:
        per_class = zero_shot.per_class_accuracy(targets, prediction.ranks < 1, len(task.labels))
        metrics[f"{key}_mean_per_class"] = float(np.nanmean(per_class)) if len(targets) else float("nan")
    wrong = np.flatnonzero(prediction.predicted != targets)
    wrong = wrong[np.argsort(-prediction.margins[wrong], kind="stable")][:_MISTAKES]
    pictures = held_out.images[answers.rows[places[wrong]]]
    outcome = ClassificationOutcome(
        name=task.name,
        labels=task.labels,
        targets=targets,
        predicted=prediction.predicted,
        accuracy=metrics[key],
        mistakes=[
            (picture, task.labels[targets[i]], task.labels[prediction.predicted[i]])
            for picture, i in zip(pictures, wrong, strict=True)
        ],
        way=way,
        per_class=per_class,
        candidates=classes,
    )
    return outcome, metrics, chance
