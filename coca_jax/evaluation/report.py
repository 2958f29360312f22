"""report.html: one file, no network, that shows what a run learned."""

import html
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coca_jax.evaluation.sections import anchor, result_section, spoken
from coca_jax.evaluation.suite import EvaluationResult
from coca_jax.pages.charts import Line, column, line_chart, number, percent
from coca_jax.storage.files import write_atomically

_LOSSES = [
    Line("contrastive", "contrastive_loss", "line-1"),
    Line("captioning", "captioning_loss", "line-2"),
    Line("weighted sum", "loss", "line-3"),
]
_EVALUATIONS = [  # keys of a history row below `<set>/`
    Line("picture to caption R@1", "image_to_text_r1", "line-1"),
    Line("captions right", "caption_equivalent", "line-2"),
    Line("caption to picture R@1", "text_to_image_r1", "line-3"),
]


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    results: Sequence[EvaluationResult],
    history: Sequence[Mapping],
    info: Mapping[str, str],
) -> None:
    """Writes the page, atomically.

    Args:
      path: of the HTML file.
      title: its heading.
      results: of each evaluated set; any part of them may be empty.
      history: the rows of metrics.jsonl; of two rows of one step the later counts
        (a run that went back to its checkpoint).
      info: what else to say of the model and the run, shown as it is.
    """
    rows = _by_step(history)
    template = string.Template((Path(__file__).parents[1] / "pages/templates/report.html").read_text(encoding="utf-8"))
    results = sorted(results, key=lambda result: f"{result.name}/sets" not in result.metrics)  # means of groups first
    body = [result_section(result) for result in results]
    body += [_training(rows, [result.name for result in results]), _info(info)]
    navigation = _navigation(results, rows, info)
    page = template.substitute(kind="evaluation report", title=html.escape(title), nav=navigation, body="".join(body))
    write_atomically(path, page)


def _by_step(history: Sequence[Mapping]) -> list[Mapping]:
    """Rows in order of steps. Rows of one step merge: losses and evaluations may stand on lines of their own."""
    merged: dict[float, dict] = {}
    for row in history:
        if isinstance(row.get("step"), (int, float)):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def _navigation(results: Sequence[EvaluationResult], rows: Sequence[Mapping], info: Mapping[str, str]) -> str:
    links = [(anchor(result.name), spoken(result.name)) for result in results]
    if rows:
        links.append(("training", "training"))
    if info:
        links.append(("run", "model and run"))
    return "".join(f'<a href="#{target}">{html.escape(words)}</a>' for target, words in links)


def _training(rows: Sequence[Mapping], sets: Sequence[str]) -> str:
    if not rows:
        return ""
    speed, wait = column(rows, "pairs_per_second"), column(rows, "data_wait")
    facts = [("steps", f"{rows[-1]['step']:,}")]
    for words, key in (("last loss", "loss"), ("last contrastive loss", "contrastive_loss")):
        if np.isfinite(column(rows, key)[-1:]).all():
            facts.append((words, number(float(column(rows, key)[-1]))))
    if np.isfinite(speed).any():
        facts.append(("pairs a second, median", number(float(np.nanmedian(speed)))))
    if np.isfinite(wait).any():
        facts.append(("time waiting for data", percent(float(np.nanmean(wait)))))
    charts = [line_chart(rows, _LOSSES, "Loss")]
    for name in sets:
        lines = [Line(line.name, f"{name}/{line.key}", line.style) for line in _EVALUATIONS]
        charts.append(line_chart(rows, lines, f"Evaluations while training: {spoken(name)}", percent))
    small = [
        line_chart(rows, [Line("pairs a second", "pairs_per_second")], "Pairs a second", small=True),
        line_chart(rows, [Line("waiting for data", "data_wait")], "Waiting for data", percent, small=True),
        line_chart(rows, [Line("learning rate", "learning_rate")], "Learning rate", small=True),
        line_chart(rows, [Line("temperature", "temperature")], "Temperature", small=True),
    ]
    listed = "".join(f"<div><dt>{words}</dt><dd>{value}</dd></div>" for words, value in facts)
    return (
        f'<section id="training"><h2>Training</h2><dl class="facts">{listed}</dl>{"".join(charts)}'
        f'<div class="row">{"".join(small)}</div></section>'
    )


def _info(info: Mapping[str, str]) -> str:
    if not info:
        return ""
    rows = "".join(
        f"<div><dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd></div>" for key, value in info.items()
    )
    return f'<section id="run"><h2>Model and run</h2><dl class="info">{rows}</dl></section>'
