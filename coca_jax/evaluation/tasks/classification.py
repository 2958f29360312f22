"""Zero-shot classification: by embeddings, as in CLIP (arXiv 2103.00020, §3.1.4), and by the likelihood of captions."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.metrics import classes, ranking
from coca_jax.evaluation.metrics.classes import ClassPredictions
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.evaluation.tasks.base import TaskResult, shown_images
from coca_jax.pages.blocks import Block, Card, CardLine, Columns, Gallery, Heading, Matrix, Table, Text, Tile
from coca_jax.pages.charts import percent

_TOP_K = ((5, 10), (10, 1_000))  # (k, classes): top-k accuracy is given for more classes than so many
_MISTAKES = 6
_MATRIX_UP_TO = 20  # classes; beyond, the most confused pairs are easier to read than a matrix
_PAIRS = 12
_ENDS = 25  # classes at either end of a long list


class ZeroShotClassification:
    """The task, by the contrastive embeddings: the class whose texts are most similar to the image."""

    branch: ClassVar[str] = "contrastive"

    def needs(self, dataset: EvaluationDataset) -> Needs:
        return Needs(embeddings=True, classifiers=tuple(dataset.classifications))

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        answers = [most_similar(task, predictions) for task in dataset.classifications]
        return classification_result(dataset, predictions, answers, "zero_shot", "zero-shot")


class LikelihoodClassification:
    """The task, by the likelihood of captions: the class whose caption is most probable, given the image."""

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


def most_similar(task: Classification, predictions: Predictions) -> ClassPredictions:
    """The predicted classes; one of several members is as probable as all of these together."""
    places, targets = predictions.part(task)
    classifier, candidates, texts = predictions.classifiers[task.name], task.candidate_classes, task.candidate_texts
    first, parts = classes.first_equal(texts), []
    member = {name: i for i, (name, *_) in enumerate(task.prompted_names)}
    vectors = classifier if task.members else classifier[candidates]
    for rows, scores in ranking.scored_blocks(predictions.image_embeddings[places], vectors):
        if task.members:
            members = [[member[name] for name in own] for own in texts]
            scores = classes.member_probabilities(scores, members, predictions.temperature)
        parts.append(classes.predict_classes(scores, targets[rows], candidates, first))
    return classes.joined(parts)


def classification_result(
    dataset: EvaluationDataset, predictions: Predictions, answers: Sequence[ClassPredictions], prefix: str, way: str
) -> TaskResult:
    """The result of a task that classifies images, with the answers to each of the dataset's classifications.

    Metrics are `<prefix>_<name>` (accuracy; ties count as wrong, but of classes with the same texts the first is right),
    `…_top5`, `…_top10` and `…_mean_per_class`; `way` tells in words how the images were classified.
    """
    metrics: dict[str, float] = {}
    baselines: dict[str, float] = {}
    tiles: list[Tile] = []
    columns: list[list[Block]] = []
    for task, answer in zip(dataset.classifications, answers, strict=True):
        places, right = predictions.part(task)
        hit = (right == answer.predicted[:, None]).any(axis=1)
        targets = np.where(hit, answer.predicted, right[:, 0])
        count, key = len(task.candidate_classes), metric_name(prefix, task)
        is_head = key == prefix  # by its own classes; the dataset's gallery shows its mistakes
        name = (prefix if is_head else task.name).replace("_", " ")
        for k, more_than in ((1, 0), *_TOP_K):
            if count > more_than:
                top = f"{key}_top{k}" if k > 1 else key
                metrics[top] = ranking.hit_rate(answer.ranks, k)
                baselines[top] = ranking.chance_hit_rate((right >= 0).sum(axis=1), count, k)
        per_class = classes.per_class_accuracy(targets, answer.ranks < 1, len(task.labels))
        metrics[f"{key}_mean_per_class"] = float(np.nanmean(per_class)) if len(targets) else float("nan")
        tiles.append(Tile(name.capitalize(), metrics[key], f"{way}, {count:,} classes", baselines[key]))
        detail = f"{count:,} classes; {np.sum(answer.ranks < 1):,} of {len(targets):,} images right."
        blocks: list[Block] = [Heading(f"{name.capitalize()}, {way}", detail), _other_metrics(metrics, key)]
        if len(task.labels) <= _MATRIX_UP_TO:
            counts = classes.confusion_matrix(targets, answer.predicted, len(task.labels))
            blocks.append(Matrix(task.labels, counts, "Rows: true classes. Columns: predicted classes."))
        else:
            blocks += _confused_pairs(task.labels, targets, answer.predicted)
        blocks += _accuracy_by_class(task.labels, targets, per_class)
        blocks += [] if is_head else _mistakes(dataset, predictions.rows[places], task.labels, targets, answer)
        columns.append(blocks)
    notes = [note for task in dataset.classifications if (note := _equal_names(task))]
    return TaskResult(metrics, baselines, tiles, [Columns(columns)] if columns else [], notes)


def metric_name(prefix: str, task: Classification) -> str:
    """The name of a classification's accuracy: `<prefix>_<name>`; by a head and its own classes, not coarser ones, `accuracy`."""
    return prefix if prefix == "accuracy" and not task.members else f"{prefix}_{task.name}"


def _equal_names(task: Classification) -> str:
    """A sentence on classes that no text tells apart; empty if there are none."""
    texts = task.candidate_texts
    later = [i for i, first in enumerate(classes.first_equal(texts)) if first < i]
    if not later:
        return ""
    if task.members:
        labels = [task.labels[task.candidate_classes[i]] for i in later]
        return f"{task.name}: {', '.join(labels[:3])} comprise what others do: only the first of each can be right"
    again = [texts[i][0] for i in later]
    verb = "class has" if len(again) == 1 else "classes have"
    return f"{len(again)} {verb} the name of another ({', '.join(again[:3])}): only the first of each can be right"


def _other_metrics(metrics: dict[str, float], key: str) -> Text:
    words = {f"{key}_top{k}": f"right class among the first {k}" for k, _ in _TOP_K}
    words[f"{key}_mean_per_class"] = "mean of the classes"
    return Text("; ".join(f"{text}: {percent(metrics[one])}" for one, text in words.items() if one in metrics) + ".")


def _accuracy_by_class(labels: Sequence[str], targets: np.ndarray, per_class: np.ndarray) -> list[Block]:
    """Accuracies in ascending order, folded away; of many classes the ends of the list.

    Empty if each class has but one image: the gallery of mistakes shows those better.
    """
    counts = np.bincount(targets, minlength=len(labels))
    if counts.max(initial=0) < 2:
        return []
    present = np.flatnonzero(~np.isnan(per_class))
    order = present[np.argsort(per_class[present], kind="stable")]
    shown = order if len(order) <= 2 * _ENDS else np.concatenate([order[:_ENDS], order[-_ENDS:]])
    rows = [(labels[i], percent(float(per_class[i])), f"{counts[i]:,}") for i in shown]
    which = "all classes"
    if len(shown) < len(order):
        which = f"the {_ENDS} worst and the {_ENDS} best of {len(order):,} classes"
    return [Table(("Class", "Right", "Images"), rows, "Accuracy of classes", folded=f"Class by class: {which}")]


def _confused_pairs(labels: Sequence[str], targets: np.ndarray, predicted: np.ndarray) -> list[Block]:
    pairs = classes.confused_pairs(targets, predicted)
    if not pairs or pairs[0][2] == 1:
        return []  # each confusion occurred once: the gallery of mistakes shows some
    rows = [(labels[target], labels[answer], f"{count:,}") for target, answer, count in pairs[:_PAIRS]]
    return [Table(("True class", "Predicted class", "Times"), rows, "Most confused classes")]


def _mistakes(
    dataset: EvaluationDataset, rows: np.ndarray, labels: Sequence[str], targets: np.ndarray, answer: ClassPredictions
) -> list[Block]:
    wrong = np.flatnonzero(answer.predicted != targets)
    wrong = wrong[np.argsort(-answer.margins[wrong], kind="stable")][:_MISTAKES]
    cards = []
    for i, images in zip(wrong, shown_images(dataset, rows[wrong]), strict=True):
        true = labels[targets[i]]
        lines = [CardLine("predicted", labels[answer.predicted[i]], mark=False, quiet=False), CardLine("true", true)]
        cards.append(Card(images, lines, true))
    return [Gallery("Most confident mistakes", cards, layout="strip")] if cards else []
