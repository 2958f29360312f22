"""The report's section for one evaluated set: numbers, gallery, searches, classifications."""

from collections.abc import Sequence

from coca_jax.evaluation import class_sections
from coca_jax.evaluation.class_sections import spoken
from coca_jax.evaluation.classification import EMBEDDINGS
from coca_jax.evaluation.gallery import Example, Search
from coca_jax.evaluation.results import shown
from coca_jax.evaluation.suite import EvaluationResult
from coca_jax.pages.blocks import (
    Block,
    Card,
    CardLine,
    Cell,
    Columns,
    Gallery,
    Heading,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from coca_jax.pages.charts import percent

_SCORES = [  # of captions, below `<set>/caption_`
    *((f"bleu_{order}", f"BLEU-{order}") for order in (1, 2, 3, 4)),
    ("rouge_l", "ROUGE-L"),
    ("cider", "CIDEr"),
    ("meteor", "METEOR"),
    ("spice", "SPICE"),
]
_DIRECTIONS = (
    ("image_to_text", "Image to text", "right caption ranked first"),
    ("text_to_image", "Text to image", "right image ranked first"),
    ("video_to_text", "Video to text", "right caption ranked first"),
    ("text_to_video", "Text to video", "right clip ranked first"),
)


def result_section(result: EvaluationResult) -> Section:
    """Everything that the report shows of one set."""
    name = spoken(result.name)
    blocks = [
        *_pool(result),
        *_group(result),
        *_tiles(result),
        *_retrieval_table(result),
        *_other_numbers(result),
        *_caption_scores(result),
        *_gallery("Examples", "Held-out images, evenly spread over the set.", result.gallery),
        *_gallery("Mistakes", "The wrong answers that come closest to the truth.", result.mistakes),
        *_searches(result.searches),
    ]
    if result.classifications:
        blocks.append(Columns([class_sections.classification(outcome) for outcome in result.classifications]))
    return Section(name[:1].upper() + name[1:], anchor(result.name), blocks)


def anchor(name: str) -> str:
    return "set-" + "".join(c if c.isalnum() else "-" for c in name)


def _get(result: EvaluationResult, key: str) -> float | None:
    return result.metrics.get(f"{result.name}/{key}")


def _pool(result: EvaluationResult) -> list[Block]:
    """Number of images and captions, records left out, notes."""
    images, captions, meanings = (_get(result, key) for key in ("images", "distinct_captions", "distinct_meanings"))
    if images is None:
        return [Text(f"Not evaluated: {result.failed}.", "lead")] if result.failed else []
    words = f"{images:,} held-out images"
    if captions is not None:
        words += f", {captions:,} distinct captions"
    if meanings is not None and meanings != captions:
        words += f" with {meanings:,} distinct meanings"
    lost = "; ".join(f"{count:,} {cause}" for cause, count in result.unreadable.items())
    words += f". Records that could not be used: {lost}" if lost else ""
    return [Text(f"{words}.", "lead"), *(Text(note, "lead") for note in result.notes)]


def _group(result: EvaluationResult) -> list[Block]:
    """The figures of a group of sets, which has no images of its own."""
    sets = _get(result, "sets")
    if sets is None:
        return []
    rows = [
        (spoken(key.rpartition("/")[2]), shown(key, value))
        for key, value in result.metrics.items()
        if key != f"{result.name}/sets"
    ]
    return [Text(f"The mean of {sets:,} sets.", "lead"), Table((), rows, "Means")]


def _tiles(result: EvaluationResult) -> list[Block]:
    headlines = [(f"{key}_r1", label, detail, "chance") for key, label, detail in _DIRECTIONS]
    headlines.append(("caption_equivalent", "Captions right", "same meaning as the truth", "best fixed caption"))
    for outcome in result.classifications:
        way = "zero-shot" if outcome.way == EMBEDDINGS else "by caption likelihood"
        classes = f"{way}, {outcome.candidates:,} classes"
        headlines.append((outcome.key, spoken(outcome.name).capitalize(), classes, "chance"))
    tiles = [
        Tile(label, value, detail, result.chance.get(f"{result.name}/{key}"), baseline)
        for key, label, detail, baseline in headlines
        if (value := _get(result, key)) is not None
    ]
    return [Tiles(tiles)] if tiles else []


def _retrieval_table(result: EvaluationResult) -> list[Block]:
    rows = []
    for direction, label, _ in _DIRECTIONS:
        cells = []
        for k in (1, 5, 10):
            value, chance = _get(result, f"{direction}_r{k}"), result.chance.get(f"{result.name}/{direction}_r{k}")
            if value is not None:
                cells.append(Cell(percent(value), "" if chance is None else f"chance {percent(chance)}"))
        if cells:
            rows.append([label, *cells])
    return [Table(("Right answer among the first", "1", "5", "10"), rows, "Retrieval")] if rows else []


def _other_numbers(result: EvaluationResult) -> list[Block]:
    names = {
        "caption_exact": "generated captions word for word as the truth",
        "caption_parsed": "generated captions that are well-formed",
    }
    for outcome in result.classifications:
        name = spoken(outcome.name)
        names[f"{outcome.key}_top5"] = f"{name}, right class among the first five"
        names[f"{outcome.key}_mean_per_class"] = f"{name}, mean of the classes"
    values = [f"{words}: {percent(value)}" for key, words in names.items() if (value := _get(result, key)) is not None]
    return [Text(f"Also: {'; '.join(values)}.")] if values else []


def _caption_scores(result: EvaluationResult) -> list[Block]:
    scores = {words: value for key, words in _SCORES if (value := _get(result, f"caption_{key}")) is not None}
    if not scores:
        return []
    rows = [["Score", *(f"{100 * value:.1f}" for value in scores.values())]]
    return [
        Heading("Generated captions against the references", "Times 100, as papers print them."),
        Table(("", *scores), rows, "Caption scores"),
    ]


def _card(example: Example) -> Card:
    lines = []
    if example.generated is not None:
        lines.append(CardLine("generated", example.generated or "(nothing)", mark=example.generated_right, quiet=False))
    lines.append(CardLine("truth", example.caption))
    if example.retrieved is not None:
        # The truth stands above: a retrieved caption that equals it need not be read twice.
        text = "" if example.retrieved == example.caption else example.retrieved
        lines.append(CardLine("retrieved", text, mark=example.retrieved_right, quiet=example.generated is not None))
    return Card(example.image, lines, example.caption)


def _gallery(title: str, detail: str, examples: Sequence[Example]) -> list[Block]:
    return [Gallery(title, [_card(example) for example in examples], detail)] if examples else []


def _searches(searches: Sequence[Search]) -> list[Block]:
    if not searches:
        return []
    blocks: list[Block] = [Heading("Text-to-image search", "The held-out images that rank first, best on the left.")]
    for search in searches:
        cards = [
            Card(example.image, [CardLine(mark=True, note="match")] if match else [], example.caption)
            for example, match in zip(search.examples, search.right, strict=True)
        ]
        count = "no image of the set matches"
        if search.matching:
            count = f"{sum(search.right):,} of {search.matching:,} matching images among the first {len(search.right)}"
        blocks.append(Gallery(f"“{search.sentence}”", cards, count, layout="strip"))
    return blocks
