"""The report's HTML for one evaluated set: numbers, gallery, searches, confusions, mistakes.

Every text of a user's data passes `html.escape` here.
"""

import html
from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation import class_sections
from coca_jax.evaluation.class_sections import spoken
from coca_jax.evaluation.classification import EMBEDDINGS
from coca_jax.evaluation.gallery import Example, Search
from coca_jax.evaluation.results import shown
from coca_jax.evaluation.suite import EvaluationResult
from coca_jax.pages.charts import percent
from coca_jax.pages.images import picture

_SCORES = [  # of captions, below `<set>/caption_`
    *((f"bleu_{order}", f"BLEU-{order}") for order in (1, 2, 3, 4)),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr"),
    ("meteor", "METEOR"),
    ("spice", "SPICE"),
]


def result_section(result: EvaluationResult) -> str:
    """All that the report says of one set, as a `<section>`."""
    parts = [
        f"<h2>{html.escape(spoken(result.name))}</h2>",
        _pool(result),
        _group(result),
        _tiles(result),
        _retrieval_table(result),
        _caption_scores(result),
        _gallery("What it sees", "Held-out pictures, evenly spread over the set.", result.gallery),
        _gallery("Where it errs", "The wrong answers that come closest to the truth.", result.mistakes),
        _searches(result.searches),
        f'<div class="namings">{"".join(map(class_sections.classification, result.classifications))}</div>',
    ]
    return f'<section id="{anchor(result.name)}" class="set">{"".join(parts)}</section>'


def anchor(name: str) -> str:
    return "set-" + "".join(c if c.isalnum() else "-" for c in name)


def _get(result: EvaluationResult, key: str) -> float | None:
    return result.metrics.get(f"{result.name}/{key}")


def _pool(result: EvaluationResult) -> str:
    images, captions, meanings = (_get(result, key) for key in ("images", "distinct_captions", "distinct_meanings"))
    if images is None:
        return f'<p class="pool">{html.escape(f"Not evaluated: {result.failed}.")}</p>' if result.failed else ""
    words = f"{images:,} held-out pictures"
    if captions is not None:
        words += f", {captions:,} distinct captions"
    if meanings is not None and meanings != captions:
        words += f" with {meanings:,} distinct meanings"
    lost = "; ".join(f"{count:,} {cause}" for cause, count in result.unreadable.items())
    words += f". Records that could not be used: {lost}" if lost else ""
    notes = "".join(f'<p class="pool">{html.escape(note)}</p>' for note in result.notes)
    return f'<p class="pool">{html.escape(words)}.</p>{notes}'


def _group(result: EvaluationResult) -> str:
    """The figures of a group of sets, which has no pictures of its own."""
    sets = _get(result, "sets")
    if sets is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(spoken(key.rpartition("/")[2]))}</th><td>{shown(key, value)}</td></tr>'
        for key, value in result.metrics.items()
        if key != f"{result.name}/sets"
    )
    return (
        f'<p class="pool">The mean of {sets:,} sets.</p><div class="scroll" role="region" aria-label="Means" '
        f'tabindex="0"><table class="numbers"><tbody>{rows}</tbody></table></div>'
    )


def _tiles(result: EvaluationResult) -> str:
    headlines = [
        ("image_to_text_r1", "Picture to caption", "right caption ranked first", "chance"),
        ("text_to_image_r1", "Caption to picture", "right picture ranked first", "chance"),
        ("video_to_text_r1", "Clip to caption", "right caption ranked first", "chance"),
        ("text_to_video_r1", "Caption to clip", "right clip ranked first", "chance"),
        ("caption_equivalent", "Captions right", "same meaning as the truth", "best fixed caption"),
    ]
    for outcome in result.classifications:
        way = "zero-shot" if outcome.way == EMBEDDINGS else "by caption likelihood"
        classes = f"{way}, {outcome.candidates:,} classes"
        headlines.append((outcome.key, spoken(outcome.name).capitalize(), classes, "chance"))
    tiles = []
    for key, label, detail, baseline in headlines:
        value = _get(result, key)
        if value is not None:
            tiles.append(_tile(label, detail, value, result.chance.get(f"{result.name}/{key}"), baseline))
    return f'<ul class="tiles">{"".join(tiles)}</ul>' if tiles else ""


def _tile(label: str, detail: str, value: float, chance: float | None, baseline: str) -> str:
    mark = note = ""
    if chance is not None:
        mark = f'<u style="left:{100 * chance:.2f}%"></u>'
        note = f"{baseline} {percent(chance)}"
    return (
        f'<li><h3>{html.escape(label)}</h3><p class="value">{percent(value).replace("%", "<small>%</small>")}</p>'
        f'<div class="meter" aria-hidden="true"><i style="width:{100 * np.nan_to_num(value):.2f}%"></i>{mark}</div>'
        f"<p>{html.escape(detail)}</p><p>{note}</p></li>"
    )


def _retrieval_table(result: EvaluationResult) -> str:
    rows = []
    for way, words in (
        ("image_to_text", "Picture to caption"),
        ("text_to_image", "Caption to picture"),
        ("video_to_text", "Clip to caption"),
        ("text_to_video", "Caption to clip"),
    ):
        cells = []
        for k in (1, 5, 10):
            value, chance = _get(result, f"{way}_r{k}"), result.chance.get(f"{result.name}/{way}_r{k}")
            if value is not None:
                beside = "" if chance is None else f" <small>chance {percent(chance)}</small>"
                cells.append(f"<td>{percent(value)}{beside}</td>")
        if cells:
            rows.append(f'<tr><th scope="row">{words}</th>{"".join(cells)}</tr>')
    more = [
        f"{words} {percent(value)}"
        for words, key in [
            ("generated captions word for word as the truth:", "caption_exact"),
            ("generated captions that are well-formed:", "caption_parsed"),
            *(
                (f"{spoken(o.name)}, right class among the first five:", f"{o.key}_top5")
                for o in result.classifications
            ),
            *((f"{spoken(o.name)}, mean of the classes:", f"{o.key}_mean_per_class") for o in result.classifications),
        ]
        if (value := _get(result, key)) is not None
    ]
    table = (
        '<div class="scroll" role="region" aria-label="Retrieval" tabindex="0"><table class="numbers"><thead><tr>'
        '<th scope="col">Right answer among the first</th><th scope="col">1</th><th scope="col">5</th>'
        f'<th scope="col">10</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    also = f'<p class="also">Also: {html.escape("; ".join(more))}.</p>' if more else ""
    return (table if rows else "") + also


def _caption_scores(result: EvaluationResult) -> str:
    found = [(words, value) for key, words in _SCORES if (value := _get(result, f"caption_{key}")) is not None]
    if not found:
        return ""
    head = "".join(f'<th scope="col">{words}</th>' for words, _ in found)
    cells = "".join(f"<td>{100 * value:.1f}</td>" for _, value in found)
    return (
        '<h3>Captions against those of people</h3><p class="detail">Times 100, as papers print them.</p>'
        '<div class="scroll" role="region" aria-label="Caption scores" tabindex="0"><table class="numbers">'
        f"<thead><tr>{head}</tr></thead><tbody><tr>{cells}</tr></tbody></table></div>"
    )


def _mark(right: bool | None, yes: str = "right", no: str = "wrong") -> str:
    if right is None:
        return ""
    return f'<b class="right">✓ {yes}</b>' if right else f'<b class="wrong">✗ {no}</b>'


def _card(example: Example) -> str:
    rows = []
    if example.generated is not None:
        text = html.escape(example.generated) or "<em>(nothing)</em>"
        rows.append(f'<dt>writes {_mark(example.generated_right)}</dt><dd class="said">{text}</dd>')
    rows.append(f"<dt>truth</dt><dd>{html.escape(example.caption)}</dd>")
    if example.retrieved is not None:
        main = ' class="said"' if example.generated is None else ""
        # The truth stands above: a retrieved caption that is just the same need not be read twice.
        text = "" if example.retrieved == example.caption else f"<dd{main}>{html.escape(example.retrieved)}</dd>"
        rows.append(f"<dt>retrieves {_mark(example.retrieved_right)}</dt>{text}")
    return f'<li class="card">{picture(example.image, example.caption)}<dl>{"".join(rows)}</dl></li>'


def _gallery(title: str, detail: str, examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    return f'<h3>{title}</h3><p class="detail">{detail}</p><ul class="gallery">{"".join(map(_card, examples))}</ul>'


def _searches(searches: Sequence[Search]) -> str:
    blocks = []
    for search in searches:
        found = "".join(
            f"<li>{picture(example.image, example.caption)}{_mark(True, 'match') if hit else ''}</li>"
            for example, hit in zip(search.examples, search.right, strict=True)
        )
        held = "the set has no such picture"
        if search.matching:
            held = f"{sum(search.right):,} of {search.matching:,} such pictures among the first {len(search.right)}"
        sentence = html.escape(search.sentence)
        blocks.append(f'<h4>“{sentence}” <small>{held}</small></h4><ol class="strip">{found}</ol>')
    if not blocks:
        return ""
    return (
        '<h3>Looking for a sentence</h3><p class="detail">The held-out pictures that rank first, best on the left.</p>'
        + "".join(blocks)
    )
