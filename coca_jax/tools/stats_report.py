"""What `stats` found, as a dict for programs, a table for terminals and a page with histograms."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from coca_jax.config import Config
from coca_jax.pages.blocks import Bars, Block, Columns, Heading, Section, Table
from coca_jax.pages.page import write_page
from coca_jax.tools import sets
from coca_jax.tools.stats import SetStats

_BINS = 12
_ASPECTS = (0, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 0.95, 1.05, 4 / 3, 3 / 2, 2, 3, np.inf)
_ASPECT_NAMES = (
    "below 1:3",
    "1:3 to 1:2",
    "1:2 to 2:3",
    "2:3 to 3:4",
    "3:4 to 0.95",
    "square",
    "1.05 to 4:3",
    "4:3 to 3:2",
    "3:2 to 2:1",
    "2:1 to 3:1",
    "above 3:1",
)


def as_dict(found: Mapping[str, SetStats], length: int) -> dict[str, Any]:
    """All sets for `json.dumps`; `length`: tokens that the model reads."""
    return {name: _one(stats, length) for name, stats in found.items()}


def _one(stats: SetStats, length: int) -> dict[str, Any]:
    captions = len(stats.tokens)
    aspects = np.histogram(stats.widths / np.maximum(stats.heights, 1), _ASPECTS)[0]
    return {
        "records": stats.records,
        "read": stats.read,
        "usable": len(stats.per_picture),
        "lost": dict(stats.damage),
        "corrupt": {
            cause: {"count": stats.corrupt_counts[cause], "names": names} for cause, names in stats.corrupt.items()
        },
        "formats": dict(stats.formats.most_common()),
        "bytes": _spread(stats.bytes),
        "width": _spread(stats.widths),
        "height": _spread(stats.heights),
        "shorter_side": _spread(np.minimum(stats.widths, stats.heights)),
        "aspect": dict(zip(_ASPECT_NAMES, aspects.tolist(), strict=True)),
        "identical_pictures": stats.identical,
        "captions": captions,
        "captions_per_picture": _spread(stats.per_picture),
        "characters": _spread(stats.characters),
        "tokens": _spread(stats.tokens) | {"model_reads": length, "longer": int((stats.tokens > length).sum())},
        "repeated_captions": captions - stats.distinct,
        "most_frequent": [{"caption": text, "count": count} for text, count in stats.often],
    }


def _spread(values: np.ndarray) -> dict[str, Any]:
    """Extremes, quantiles, mean and a histogram of whole numbers."""
    if not len(values):
        return {"mean": None}
    low, high = int(values.min()), int(values.max())
    edges = np.unique(np.linspace(low, high + 1, _BINS + 1).astype(np.int64))
    quantiles = np.quantile(values, [0.05, 0.5, 0.95], method="nearest").tolist()
    return {
        "min": low,
        "p5": quantiles[0],
        "median": quantiles[1],
        "p95": quantiles[2],
        "max": high,
        "mean": round(float(values.mean()), 3),
        "histogram": {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()},
    }


def table(values: Mapping[str, Any]) -> str:
    """The same for a terminal."""
    return "\n\n".join(_section(name, one) for name, one in values.items())


def _section(name: str, one: Mapping[str, Any]) -> str:
    rows = [(name, "min", "5 %", "median", "95 %", "max", "mean")]
    for key, words in _MEASURED:
        if one[key]["mean"] is not None:
            rows.append(
                (
                    words,
                    *(f"{one[key][part]:,}" for part in ("min", "p5", "median", "p95", "max")),
                    f"{one[key]['mean']:,.1f}",
                )
            )
    facts = [f"{words}: {value}" for words, value in _facts(one)]
    often = [f"  {row['count']:,} x {_short(row['caption'])}" for row in one["most_frequent"]]
    corrupt = [f"  such as {each}" for cause in one["corrupt"].values() for each in cause["names"][:3]]
    shapes = [f"{words} {count:,}" for words, count in one["aspect"].items() if count]
    shapes = ["aspect (width:height): " + ", ".join(shapes)] if shapes else []
    often = ["most frequent captions:", *often] if often else []
    return "\n".join([sets.table(rows), *facts, *corrupt, *shapes, *often])


_MEASURED = (
    ("bytes", "file, bytes"),
    ("width", "width, pixels"),
    ("height", "height, pixels"),
    ("shorter_side", "shorter side, pixels"),
    ("captions_per_picture", "captions a picture"),
    ("characters", "caption, characters"),
    ("tokens", "caption, tokens with BOS and EOS"),
)


def _facts(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    share = one["read"] - one["usable"]
    some = f", {one['read']:,} of them read" if one["read"] < one["records"] else ""
    facts = [
        ("records", f"{one['records']:,}{some}"),
        (
            "corrupt",
            f"{share:,} ({share / max(one['read'], 1):.2%} of those read)"
            + _listed({cause: value["count"] for cause, value in one["corrupt"].items()}),
        ),
    ]
    facts += [("lost while indexing", _listed(one["lost"])[2:])] if one["lost"] else []
    facts += [
        ("formats", _listed(one["formats"])[2:] or "none"),
        ("pictures with the same bytes as another", f"{one['identical_pictures']:,}"),
        ("captions", f"{one['captions']:,}, of which {one['repeated_captions']:,} repeat another"),
        (
            f"captions longer than the {one['tokens']['model_reads']} tokens that the model reads",
            f"{one['tokens']['longer']:,}",
        ),
    ]
    return facts


def _listed(counts: Mapping[str, int]) -> str:
    return "".join(f", {name}: {count:,}" for name, count in counts.items())


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def write(path: str, config: Config, split: str, found: Mapping[str, SetStats]) -> None:
    """Writes the page with histograms.

    Raises:
      CocaError: the file cannot be written.
    """
    values = as_dict(found, config.model.text.length)
    total = sum(one["read"] for one in values.values())
    write_page(
        path,
        kind="data statistics",
        title=config.data.name or ", ".join(values),
        summary=f"{total:,} records of the split {split} were read.",
        sections=[Section(name, f"set-{number}", _blocks(one)) for number, (name, one) in enumerate(values.items())],
    )


def _blocks(one: Mapping[str, Any]) -> list[Block]:
    """Counts, histograms, and the most frequent captions of a dataset."""
    histograms = [Bars("width : height", [row for row in one["aspect"].items() if row[1]])]
    for key, words in _MEASURED:
        if one[key]["mean"] is not None:
            edges, counts = one[key]["histogram"]["edges"], one[key]["histogram"]["counts"]
            names = [
                f"{low:,}" if high - low <= 1 else f"{low:,} to {high - 1:,}" for low, high in itertools.pairwise(edges)
            ]
            histograms.append(Bars(words, list(zip(names, counts, strict=True))))
    corrupt = [(f"{cause}, such as", "\n".join(value["names"])) for cause, value in one["corrupt"].items()]
    blocks: list[Block] = [Table((), _facts(one) + corrupt, "Counts"), Columns([[bars] for bars in histograms])]
    often = [(f"{row['count']:,} ×", row["caption"]) for row in one["most_frequent"]]
    return [*blocks, Heading("Most frequent captions"), Table((), often, "Most frequent captions")] if often else blocks
