"""Statistics of a dataset, as a table for terminals and as a page with histograms."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from coca_jax.pages.blocks import Bars, Block, Columns, Heading, Section, Table
from coca_jax.pages.page import write_page
from coca_jax.pages.text_table import text_table

ASPECTS = {  # width / height from which on an image counts here
    0: "below 1:3",
    1 / 3: "1:3 to 1:2",
    1 / 2: "1:2 to 2:3",
    2 / 3: "2:3 to 3:4",
    3 / 4: "3:4 to 0.95",
    0.95: "square",
    1.05: "1.05 to 4:3",
    4 / 3: "4:3 to 3:2",
    3 / 2: "3:2 to 2:1",
    2: "2:1 to 3:1",
    3: "above 3:1",
}
_SPREADS = {
    "bytes": "file, bytes",
    "width": "width, pixels",
    "height": "height, pixels",
    "shorter_side": "shorter side, pixels",
    "captions_per_image": "captions an image",
    "characters": "caption, characters",
    "tokens": "caption, tokens with BOS and EOS",
}


@dataclasses.dataclass(frozen=True)
class Spread:
    """Extremes, quantiles, mean and a histogram of whole numbers."""

    min: int
    p5: int
    median: int
    p95: int
    max: int
    mean: float
    edges: list[int]
    counts: list[int]


@dataclasses.dataclass(frozen=True)
class Corrupt:
    """Number and some names of records that training would skip."""

    count: int
    names: list[str]


@dataclasses.dataclass(frozen=True)
class DatasetStats:
    """The contents of a dataset; everything but `records` and `lost` is about the records that were read.

    Attributes:
      records: number of records of the split; read: of those that were read; usable: of those that are not corrupt.
      lost: records that indexing could not list, by cause.
      corrupt: by cause.
      formats: images by file format; "clip" is any video.
      bytes, width, height, shorter_side: of each usable image's file; clips have no sides here. None: no image.
      aspect: images by width : height.
      identical_images: images whose bytes equal another's.
      captions: number of captions.
      captions_per_image: of each usable record; characters, tokens: of each caption, tokens with BOS and EOS.
      tokens_read: tokens that the model reads; longer_captions: captions that exceed them.
      repeated_captions: captions that equal another; most_frequent: some of those with their counts.
    """

    records: int
    read: int
    usable: int
    lost: dict[str, int]
    corrupt: dict[str, Corrupt]
    formats: dict[str, int]
    bytes: Spread | None
    width: Spread | None
    height: Spread | None
    shorter_side: Spread | None
    aspect: dict[str, int]
    identical_images: int
    captions: int
    captions_per_image: Spread | None
    characters: Spread | None
    tokens: Spread | None
    tokens_read: int
    longer_captions: int
    repeated_captions: int
    most_frequent: dict[str, int]

    def spreads(self) -> dict[str, Spread]:
        """The measured quantities by their names for people."""
        return {label: spread for key, label in _SPREADS.items() if (spread := getattr(self, key))}


def as_text(name: str, stats: DatasetStats) -> str:
    """The statistics as a table and lines."""
    rows: list[Sequence[str]] = [(name, "min", "5 %", "median", "95 %", "max", "mean")]
    for label, spread in stats.spreads().items():
        quantiles = (spread.min, spread.p5, spread.median, spread.p95, spread.max)
        rows.append((label, *(f"{value:,}" for value in quantiles), f"{spread.mean:,.1f}"))
    lines = [text_table(rows), *(f"{label}: {value}" for label, value in _facts(stats))]
    lines += [f"  such as {each}" for corrupt in stats.corrupt.values() for each in corrupt.names[:3]]
    aspects = _listed({label: count for label, count in stats.aspect.items() if count})
    lines += [f"aspect (width:height): {aspects}"] if aspects else []
    lines += ["most frequent captions:"] if stats.most_frequent else []
    lines += [
        f"  {count:,} x {text if len(text) <= 80 else text[:79] + '…'}" for text, count in stats.most_frequent.items()
    ]
    return "\n".join(lines)


def _facts(stats: DatasetStats) -> list[tuple[str, str]]:
    corrupt = stats.read - stats.usable
    part = f", {stats.read:,} of them read" if stats.read < stats.records else ""
    causes = _listed({cause: one.count for cause, one in stats.corrupt.items()})
    return [
        ("records", f"{stats.records:,}{part}"),
        ("corrupt", f"{corrupt:,} ({corrupt / max(stats.read, 1):.2%} of those read)" + (causes and f", {causes}")),
        *([("lost while indexing", _listed(stats.lost))] if stats.lost else []),
        ("formats", _listed(stats.formats) or "none"),
        ("images with the same bytes as another", f"{stats.identical_images:,}"),
        ("captions", f"{stats.captions:,}, of which {stats.repeated_captions:,} repeat another"),
        (f"captions longer than the {stats.tokens_read} tokens that the model reads", f"{stats.longer_captions:,}"),
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def write_report(path: str, title: str, split: str, results: Mapping[str, DatasetStats]) -> None:
    """Writes the page with histograms of each dataset.

    Raises:
      CocaError: the file cannot be written.
    """
    write_page(
        path,
        kind="data statistics",
        title=title or ", ".join(results),
        summary=f"{sum(one.read for one in results.values()):,} records of the split {split} were read.",
        sections=[Section(name, f"data-{number}", _blocks(one)) for number, (name, one) in enumerate(results.items())],
    )


def _blocks(stats: DatasetStats) -> list[Block]:
    histograms = [Bars("width : height", [row for row in stats.aspect.items() if row[1]])]
    for label, spread in stats.spreads().items():
        bins = [
            f"{low:,}" if high - low <= 1 else f"{low:,} to {high - 1:,}"
            for low, high in itertools.pairwise(spread.edges)
        ]
        histograms.append(Bars(label, list(zip(bins, spread.counts, strict=True))))
    names = [(f"{cause}, such as", "\n".join(corrupt.names)) for cause, corrupt in stats.corrupt.items()]
    blocks: list[Block] = [Table((), _facts(stats) + names, "Counts"), Columns([[bars] for bars in histograms])]
    if stats.most_frequent:
        frequent = [(f"{count:,} times", text) for text, count in stats.most_frequent.items()]
        blocks += [Heading("Most frequent captions"), Table((), frequent, "Most frequent captions")]
    return blocks
