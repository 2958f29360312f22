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
_LOSSES = [
    Line("contrastive", "contrastive_loss", "line-1"),
    Line("captioning", "captioning_loss", "line-2"),
    Line("weighted sum", "loss", "line-3"),
]
_EVALUATIONS = [  # keys of a history row below `<dataset>/`
    Line("image to text R@1", "image_to_text_r1", "line-1"),
    Line("captions right", "caption_equivalent", "line-2"),
    Line("text to image R@1", "text_to_image_r1", "line-3"),
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
        )
    ]
    return [Facts(facts, large=True), *charts, Columns([chart for chart in small if chart], 210)]


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
