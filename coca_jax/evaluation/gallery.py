"""The galleries of a report: examples of a dataset, and its mistakes, with the texts that the model gave their images."""

from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.predict import Predictions
from coca_jax.evaluation.tasks.base import ImageTexts, shown_images
from coca_jax.pages.blocks import Block, Card, CardLine, Gallery

_MISTAKES = 6


def galleries(
    dataset: EvaluationDataset, predictions: Predictions, texts: Sequence[ImageTexts], count: int
) -> list[Block]:
    """`count` images spread evenly over the dataset, the same in every report, and mistakes among the others.

    Of the tasks' `texts` the first is shown first, and the first that can be wrong decides about mistakes.
    """
    images = len(predictions.rows)
    examples = sorted({int(i) for i in np.linspace(0, images - 1, min(images, count))})
    judged = next((one for one in texts if one.right is not None), None)
    wrong: list[int] = []
    if judged is not None and judged.right is not None:
        wrong = [place for place in sorted(set(range(images)).difference(examples)) if not judged.right[place]]
        # The nearest misses first: a text with one wrong word shows more than a broken one.
        truths = [dataset.captions[row][0] for row in predictions.rows]
        wrong.sort(key=lambda place: -_shared_words(judged.texts[place], truths[place]))
    blocks: list[Block] = []
    for title, detail, places in (
        ("Examples", "Held-out images, evenly spread over the dataset.", examples),
        ("Mistakes", "The wrong answers that come closest to the truth.", wrong[:_MISTAKES]),
    ):
        rows = predictions.rows[places]
        cards = [
            _card(image, dataset.captions[row][0], place, texts)
            for image, row, place in zip(shown_images(dataset, rows), rows, places, strict=True)
        ]
        blocks += [Gallery(title, cards, detail)] if cards else []
    return blocks


def _card(image: np.ndarray | None, truth: str, place: int, texts: Sequence[ImageTexts]) -> Card:
    lines = [CardLine("truth", truth)]
    for i, one in enumerate(texts):
        mark = None if one.right is None else bool(one.right[place])
        if i == 0:
            lines.insert(0, CardLine(one.label, one.texts[place] or "(nothing)", mark=mark, quiet=False))
        else:  # the truth stands above: a text that equals it need not be read twice
            lines.append(CardLine(one.label, "" if one.texts[place] == truth else one.texts[place], mark=mark))
    return Card(image, lines, truth)


def _shared_words(a: str, b: str) -> float:
    a_words, b_words = set(a.casefold().split()), set(b.casefold().split())
    return len(a_words & b_words) / max(1, len(a_words | b_words))
