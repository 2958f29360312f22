"""Writes report.html: the results of evaluations, with galleries of images, and the course of the training."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.predict import Predictions
from coca_jax.evaluation.tasks.base import DatasetResult, ImageTexts, shown_images
from coca_jax.pages.blocks import Block, Card, CardLine, Columns, Facts, Gallery, Section, Text
from coca_jax.pages.charts import Line, column, line_chart, number, percent
from coca_jax.pages.page import write_page

_MISTAKES = 6
_FRAMES = 4  # of a clip, side by side
_LOSSES = [
    Line("contrastive", "contrastive_loss", "line-1"),
    Line("captioning", "captioning_loss", "line-2"),
    Line("classification", "classification_loss", "line-1"),
    Line("weighted sum", "loss", "line-3"),
]
_EVALUATIONS = [  # keys of a history row below `<dataset>/`
    Line("image to text R@1", "image_to_text_r1", "line-1"),
    Line("captions right", "caption_equivalent", "line-2"),
    Line("text to image R@1", "text_to_image_r1", "line-3"),
    Line("accuracy", "accuracy", "line-1"),  # of a head
    Line("mean of the classes", "accuracy_mean_per_class", "line-3"),
    Line("VQA accuracy", "vqa_accuracy", "line-1"),
    Line("VQA accuracy in words", "vqa_accuracy_in_words", "line-2"),
]


def write_report(
    path: os.PathLike,
    *,
    title: str,
    results: Sequence[DatasetResult],
    history: Sequence[Mapping],
    facts: Mapping[str, str],
) -> None:
    """Writes the page, atomically.

    Args:
      results: of each evaluated dataset; any part of them may be empty.
      history: the rows of metrics.jsonl; of two rows of one step the later counts.
      facts: of the model and the run, by label.
    """
    rows = _by_step(history)
    results = sorted(results, key=lambda result: not result.is_group)
    sections = [_section(result) for result in results]
    if rows:
        sections.append(Section("Training", "training", _training(rows, [result.name for result in results])))
    if facts:
        sections.append(Section("Model and run", "run", [Facts(facts)]))
    write_page(path, kind="evaluation report", title=title, sections=sections)


def _section(result: DatasetResult) -> Section:
    name = result.name.replace("_", " ")
    anchor = "dataset-" + "".join(c if c.isalnum() else "-" for c in result.name)
    blocks = [Text(f"Not evaluated: {result.failed}.", "lead")] if result.failed else result.blocks
    return Section(name[:1].upper() + name[1:], anchor, blocks)


def _by_step(history: Sequence[Mapping]) -> list[Mapping]:
    """Rows in order of steps. Rows of one step merge: losses and evaluations may stand on lines of their own."""
    merged: dict[float, dict] = {}
    for row in history:
        if isinstance(row.get("step"), (int, float)):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _training(rows: Sequence[Mapping], names: Sequence[str]) -> list[Block]:
    """The last losses, the speed, and curves of the run."""
    speed, wait = column(rows, "pairs_per_second"), column(rows, "data_wait")
    facts = {"steps": f"{rows[-1]['step']:,}"}
    for label, key in (("last loss", "loss"), ("last contrastive loss", "contrastive_loss")):
        if np.isfinite(column(rows, key)[-1:]).all():
            facts[label] = number(float(column(rows, key)[-1]))
    if np.isfinite(speed).any():
        facts["pairs a second, median"] = number(float(np.nanmedian(speed)))
    if np.isfinite(wait).any():
        facts["time waiting for data"] = percent(float(np.nanmean(wait)))
    charts = line_chart(rows, _LOSSES, "Loss")
    for name in names:
        lines = [Line(line.name, f"{name}/{line.key}", line.style) for line in _EVALUATIONS]
        charts += line_chart(rows, lines, f"Evaluations while training: {name.replace('_', ' ')}", percent)
    small = [
        line_chart(rows, [Line(title.lower(), key)], title, form, small=True)
        for title, key, form in (
            ("Pairs a second", "pairs_per_second", number),
            ("Waiting for data", "data_wait", percent),
            ("Learning rate", "learning_rate", number),
            ("Temperature", "temperature", number),
            ("Accuracy of batches", "accuracy", percent),
            ("VQA score of batches", "vqa_score", percent),
        )
    ]
    return [Facts(facts, large=True), *charts, Columns([chart for chart in small if chart], 210)]


def galleries(
    dataset: EvaluationDataset, predictions: Predictions, texts: Sequence[ImageTexts], count: int
) -> list[Block]:
    """`count` examples spread evenly over the dataset, the same in every report, and mistakes among the others.

    Of the tasks' `texts` the first is shown first, and the first that can be wrong decides about mistakes.
    """
    total = len(predictions.rows)
    truths = next((one.truths for one in texts if one.truths), [dataset.captions[row][0] for row in predictions.rows])
    examples = sorted({int(i) for i in np.linspace(0, total - 1, min(total, count))})
    others = sorted(set(range(total)).difference(examples))
    blocks: list[Block] = []
    for title, detail, places in (
        ("Examples", "Held-out images, evenly spread over the dataset.", examples),
        *_mistakes(texts, truths, others),
    ):
        shown = shown_images(dataset, predictions.rows[places], _FRAMES)
        cards = [
            Card(images, _lines(dataset, predictions.rows[place], place, truths[place], texts), truths[place])
            for images, place in zip(shown, places, strict=True)
        ]
        layout = "wide" if any(len(images) > 1 for images in shown) else "cards"
        blocks += [Gallery(title, cards, detail, layout)] if cards else []
    return blocks


def _mistakes(
    texts: Sequence[ImageTexts], truths: Sequence[str], places: Sequence[int]
) -> list[tuple[str, str, list[int]]]:
    """Title, detail and places of the gallery of mistakes; empty if nothing can be wrong."""
    judged = next((one for one in texts if one.right is not None), None)
    if judged is None:
        return []
    wrong = [place for place in places if judged.is_right(place) is False]
    if (probabilities := judged.probabilities) is not None:
        wrong.sort(key=lambda place: -probabilities[place])
        return [("Most confident mistakes", "The wrong answers of the highest probability.", wrong[:_MISTAKES])]
    # The nearest misses first: a text with one wrong word shows more than a broken one.
    wrong.sort(key=lambda place: -_shared_words(judged.texts[place], truths[place]))
    return [("Mistakes", "The wrong answers that come closest to the truth.", wrong[:_MISTAKES])]


def _lines(dataset: EvaluationDataset, row: int, place: int, truth: str, texts: Sequence[ImageTexts]) -> list[CardLine]:
    """The lines of a card: what the model read with the image, its first answer, the truth, its other answers."""
    lines = [_line(one, place) for one in texts]
    # The truth stands above the others: a text that equals it need not be read twice.
    others = [line._replace(quiet=True, text="" if line.text == truth else line.text) for line in lines[1:]]
    true = [CardLine("truth", truth)] if truth else []
    kind = dataset.kinds[row].replace("_", " ") if dataset.kinds else ""
    read = [CardLine(dataset.text_name, dataset.texts[row], note=kind, quiet=False)] if dataset.texts else []
    return [*read, *lines[:1], *true, *others]


def _line(text: ImageTexts, place: int) -> CardLine:
    shown = text.texts[place] or "(nothing)"
    if text.probabilities is not None:
        shown += f" ({percent(float(text.probabilities[place]))})"
    return CardLine(text.label, shown, mark=text.is_right(place), quiet=False)


def _shared_words(a: str, b: str) -> float:
    a_words, b_words = set(a.casefold().split()), set(b.casefold().split())
    return len(a_words & b_words) / max(1, len(a_words | b_words))
