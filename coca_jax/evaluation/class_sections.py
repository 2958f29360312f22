"""The report's HTML for one classification: confusions, class by class, mistakes.

Every text of a user's data passes `html.escape` here.
"""

import html

import numpy as np

from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.classification import EMBEDDINGS, ClassificationOutcome
from coca_jax.pages.charts import percent
from coca_jax.pages.images import picture

_TABLE_UP_TO = 20  # classes; beyond, the most confused pairs say more than a table
_PAIRS = 12
_ENDS = 25  # classes at either end of a long list


def spoken(name: str) -> str:
    """A set's or metric's name for people: digit_scenes -> digit scenes."""
    return name.replace("_", " ")


def classification(outcome: ClassificationOutcome) -> str:
    """All that the report says of one classification, as an `<article>`."""
    name = html.escape(spoken(outcome.name))
    total = len(outcome.targets)
    right = round(np.nan_to_num(outcome.accuracy) * total)
    way = "Zero-shot" if outcome.way == EMBEDDINGS else "By caption likelihood:"
    parts = [
        f"<h3>{way} {name}</h3>",
        f'<p class="detail">{outcome.candidates:,} classes; {right:,} of {total:,} pictures right.</p>',
    ]
    parts.append(_confusion_table(outcome) if len(outcome.labels) <= _TABLE_UP_TO else _confused_pairs(outcome))
    parts.append(_per_class(outcome))
    if outcome.mistakes:
        cards = "".join(
            f'<li>{picture(image, target)}<b class="wrong">✗ says {html.escape(predicted)}</b>'
            f"<span>is {html.escape(target)}</span></li>"
            for image, target, predicted in outcome.mistakes
        )
        parts.append(f'<h4>Most confident mistakes</h4><ul class="strip">{cards}</ul>')
    return f"<article>{''.join(parts)}</article>"


def _confusion_table(outcome: ClassificationOutcome) -> str:
    counts = zero_shot.confusion_matrix(np.asarray(outcome.targets), outcome.predicted, len(outcome.labels))
    labels = [html.escape(label) for label in outcome.labels]
    rows = []
    for i, (label, row) in enumerate(zip(labels, counts, strict=True)):
        cells = []
        for j, count in enumerate(row):
            if not count:
                cells.append("<td></td>")
                continue
            share = count / row.sum()
            kind = ("hit" if i == j else "miss") + (" strong" if share > 0.5 else "")
            cells.append(f'<td class="{kind}" style="--p:{100 * share:.0f}%">{count:,}</td>')
        rows.append(f'<tr><th scope="row">{label}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col"><span>{label}</span></th>' for label in labels)
    return (
        f'<div class="scroll" role="region" aria-label="Confusion matrix" tabindex="0"><table class="confusion">'
        f"<caption>Rows: what it is. Columns: what the model says.</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _per_class(outcome: ClassificationOutcome) -> str:
    """Every class' accuracy, the worst first, folded away; of many classes the ends of the list.

    Not where each class has but one picture: it is right or wrong, and the pictures show that better.
    """
    counts = np.bincount(outcome.targets, minlength=len(outcome.labels))
    if outcome.per_class is None or counts.max(initial=0) < 2:
        return ""
    seen = np.flatnonzero(~np.isnan(outcome.per_class))
    order = seen[np.argsort(outcome.per_class[seen], kind="stable")]
    shown = order if len(order) <= 2 * _ENDS else np.concatenate([order[:_ENDS], order[-_ENDS:]])
    rows = "".join(
        f"<tr><td>{html.escape(outcome.labels[i])}</td><td>{percent(float(outcome.per_class[i]))}</td>"
        f"<td>{counts[i]:,}</td></tr>"
        for i in shown
    )
    which = "all classes"
    if len(shown) < len(order):
        which = f"the {_ENDS} worst and the {_ENDS} best of {len(order):,} classes"
    return (
        f"<details><summary>Class by class: {which}</summary>"
        '<div class="scroll" role="region" aria-label="Accuracy of classes" tabindex="0"><table class="numbers">'
        '<thead><tr><th scope="col">Class</th><th scope="col">Right</th><th scope="col">Pictures</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div></details>"
    )


def _confused_pairs(outcome: ClassificationOutcome) -> str:
    pairs = zero_shot.confused_pairs(np.asarray(outcome.targets), outcome.predicted)
    if not pairs or pairs[0][2] == 1:
        return ""  # every confusion happened once: the pictures below show some
    rows = "".join(
        f"<tr><td>{html.escape(outcome.labels[target])}</td><td>{html.escape(outcome.labels[predicted])}</td>"
        f"<td>{count:,}</td></tr>"
        for target, predicted, count in pairs[:_PAIRS]
    )
    return (
        '<div class="scroll" role="region" aria-label="Most confused classes" tabindex="0"><table class="numbers">'
        '<thead><tr><th scope="col">It is</th><th scope="col">The model says</th><th scope="col">Times</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
