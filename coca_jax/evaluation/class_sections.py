"""Blocks of the report for one classification: confusions, accuracy by class, mistakes."""

from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.classification import EMBEDDINGS, ClassificationOutcome
from coca_jax.pages.blocks import Block, Card, CardLine, Gallery, Heading, Matrix, Table
from coca_jax.pages.charts import percent

_MATRIX_UP_TO = 20  # classes; beyond, the most confused pairs are easier to read than a matrix
_PAIRS = 12
_ENDS = 25  # classes at either end of a long list


def spoken(name: str) -> str:
    """A set's or metric's name for people: digit_scenes -> digit scenes."""
    return name.replace("_", " ")


def classification(outcome: ClassificationOutcome) -> list[Block]:
    """Everything that the report shows of one classification."""
    total = len(outcome.targets)
    right = round(np.nan_to_num(outcome.accuracy) * total)
    way = "Zero-shot" if outcome.way == EMBEDDINGS else "By caption likelihood:"
    blocks: list[Block] = [
        Heading(
            f"{way} {spoken(outcome.name)}", f"{outcome.candidates:,} classes; {right:,} of {total:,} images right."
        )
    ]
    if len(outcome.labels) <= _MATRIX_UP_TO:
        counts = zero_shot.confusion_matrix(np.asarray(outcome.targets), outcome.predicted, len(outcome.labels))
        blocks.append(Matrix(outcome.labels, counts, "Rows: true classes. Columns: predicted classes."))
    else:
        blocks += _confused_pairs(outcome)
    blocks += _accuracy_by_class(outcome)
    if outcome.mistakes:
        cards = [
            Card(image, [CardLine("predicted", predicted, mark=False, quiet=False), CardLine("true", target)], target)
            for image, target, predicted in outcome.mistakes
        ]
        blocks.append(Gallery("Most confident mistakes", cards, layout="strip"))
    return blocks


def _accuracy_by_class(outcome: ClassificationOutcome) -> Sequence[Block]:
    """Accuracies in ascending order, folded away; of many classes the ends of the list.

    Empty where each class has but one image: the gallery of mistakes shows those better.
    """
    counts = np.bincount(outcome.targets, minlength=len(outcome.labels))
    if outcome.per_class is None or counts.max(initial=0) < 2:
        return []
    present = np.flatnonzero(~np.isnan(outcome.per_class))
    order = present[np.argsort(outcome.per_class[present], kind="stable")]
    shown = order if len(order) <= 2 * _ENDS else np.concatenate([order[:_ENDS], order[-_ENDS:]])
    rows = [(outcome.labels[i], percent(float(outcome.per_class[i])), f"{counts[i]:,}") for i in shown]
    which = "all classes"
    if len(shown) < len(order):
        which = f"the {_ENDS} worst and the {_ENDS} best of {len(order):,} classes"
    return [Table(("Class", "Right", "Images"), rows, "Accuracy of classes", folded=f"Class by class: {which}")]


def _confused_pairs(outcome: ClassificationOutcome) -> Sequence[Block]:
    pairs = zero_shot.confused_pairs(np.asarray(outcome.targets), outcome.predicted)
    if not pairs or pairs[0][2] == 1:
        return []  # each confusion occurred once: the gallery of mistakes shows some
    rows = [
        (outcome.labels[target], outcome.labels[predicted], f"{count:,}") for target, predicted, count in pairs[:_PAIRS]
    ]
    return [Table(("True class", "Predicted class", "Times"), rows, "Most confused classes")]
