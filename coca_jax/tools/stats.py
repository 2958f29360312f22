"""Counts the contents of a config's datasets: images, captions, damage.

    python -m coca_jax.tools stats --config=configs/x.py [--sample=100000] [--workers=8] [--html=stats.html] [--json]

reads records, evenly spread over each dataset (the same ones at each call), decodes every image and tokenises every
caption. A record is corrupt if training would skip it.
"""

import array
import collections
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from coca_jax.cli.app import define_path
from coca_jax.config import Config, DatasetConfig, ModelConfig
from coca_jax.data.images import decode, video
from coca_jax.data.images.inputs import decode_input
from coca_jax.data.records.open import SPLITS
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.corpus import load_vocabulary
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.pages.blocks import Bars, Block, Columns, Heading, Section, Table
from coca_jax.pages.page import write_page
from coca_jax.pages.terminal import text_table
from coca_jax.tools import common

_NAMES = 10  # of corrupt records, for each cause
_FREQUENT = 10  # captions that are shown as the most frequent
_BINS = 12
_QUANTITIES = (
    "file, bytes",
    "width, pixels",
    "height, pixels",
    "shorter side, pixels",
    "width by height, %",
    "captions an image",
    "caption, characters",
    "caption, tokens with BOS and EOS",
)
Stats = Mapping[str, Any]


class _Measures(NamedTuple):
    """The measures of a usable record; `numbers` holds the values of each quantity that it has."""

    digest: bytes
    format: str
    captions: tuple[str, ...]
    numbers: Mapping[str, Sequence[int]]


def measure(
    name: str,
    dataset: DatasetConfig,
    store: RecordStore,
    vocabulary: Vocabulary,
    config: Config,
    sample: int = 0,
    workers: int = 1,
) -> Stats:
    """Reads `sample` records of a dataset (0: all), by `workers` threads.

    A record is corrupt if its image cannot become an input of the config's model.

    Returns:
      Values for `json.dumps`. "records" and "lost" (while indexing, by cause) count the whole split, all others the
      records that were read; "spreads" has extremes, quantiles, mean and histogram of each quantity that has values.
    """
    indices, texts = common.evenly_spread(len(store), sample), Texts(dataset, store)
    examine = functools.partial(_examine, dataset, texts, vocabulary, config.model)
    blocks = common.in_blocks(lambda some: list(map(examine, store.read(some))), indices, workers, name)
    numbers = {quantity: array.array("q") for quantity in _QUANTITIES}
    corrupt = collections.defaultdict(list)
    formats, captions, images = Counter[str](), Counter[str](), set[bytes]()
    for index, one in zip(indices, itertools.chain.from_iterable(blocks), strict=True):
        if isinstance(one, BadRecord):
            corrupt[one.cause].append(index)
            continue
        images.add(one.digest)
        formats[one.format] += 1
        captions.update(one.captions)
        for quantity, values in one.numbers.items():
            numbers[quantity].extend(values)
    usable, *_, tokens = map(np.array, numbers.values())
    return {
        "records": len(store),
        "read": len(indices),
        "usable": len(usable),
        "lost": dict(store.census.damage),
        "corrupt": {cause: len(bad) for cause, bad in corrupt.items()},
        "corrupt_names": {cause: [store.name(index) for index in bad[:_NAMES]] for cause, bad in corrupt.items()},
        "formats": dict(formats.most_common()),
        "spreads": {quantity: _spread(np.array(values)) for quantity, values in numbers.items() if values},
        "identical_images": len(usable) - len(images),
        "captions": len(tokens),
        "repeated_captions": len(tokens) - len(captions),
        "most_frequent_captions": {text: count for text, count in captions.most_common(_FREQUENT) if count > 1},
        "tokens_that_the_model_reads": config.model.text.length,
        "captions_with_more_tokens": int((tokens > config.model.text.length).sum()),
    }


def _examine(
    dataset: DatasetConfig, texts: Texts, vocabulary: Vocabulary, model: ModelConfig, record: Record | BadRecord
) -> _Measures | BadRecord:
    try:
        if isinstance(record, BadRecord):
            raise record
        captions = texts.all(record)
        decode_input(record.image, model, dataset)
    except BadRecord as error:
        return error
    try:
        header = decode.open_header(record.image)
        kind, (width, height) = header.format or "unknown", header.size
        sides = [[width], [height], [min(width, height)], [round(100 * width / height)]]
    except BadRecord:  # usable nevertheless
        kind, sides = "clip" if video.is_clip(record.image) else "stored tokens", [[], [], [], []]
    of_texts = ([len(captions)], list(map(len, captions)), vocabulary.lengths(captions))
    numbers = dict(zip(_QUANTITIES, ([len(record.image)], *sides, *of_texts), strict=True))
    return _Measures(hashlib.blake2b(record.image, digest_size=8).digest(), kind, captions, numbers)


def _spread(values: np.ndarray) -> dict[str, Any]:
    low, high = int(values.min()), int(values.max())
    edges = np.unique(np.linspace(low, high + 1, _BINS + 1).astype(np.int64))
    p5, median, p95 = np.quantile(values, [0.05, 0.5, 0.95], method="nearest").tolist()
    quantiles = {"min": low, "p5": p5, "median": median, "p95": p95, "max": high}
    histogram = {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}
    return quantiles | {"mean": round(float(values.mean()), 3), "histogram": histogram}


def as_text(name: str, stats: Stats) -> str:
    """The statistics as a table and lines."""
    rows: list[Sequence[str]] = [(name, "min", "5 %", "median", "95 %", "max", "mean")]
    for words, spread in stats["spreads"].items():
        quantiles = (f"{spread[key]:,}" for key in ("min", "p5", "median", "p95", "max"))
        rows.append((words, *quantiles, f"{spread['mean']:,.1f}"))
    lines = [text_table(rows), *(f"{label}: {value}" for label, value in _facts(stats))]
    lines += [f"  such as {each}" for names in stats["corrupt_names"].values() for each in names[:3]]
    frequent = stats["most_frequent_captions"].items()
    lines += ["most frequent captions:"] if frequent else []
    lines += [f"  {count:,} x {text if len(text) <= 80 else text[:79] + '…'}" for text, count in frequent]
    return "\n".join(lines)


def _facts(stats: Stats) -> list[tuple[str, str]]:
    corrupt, causes = stats["read"] - stats["usable"], _listed(stats["corrupt"])
    limit = stats["tokens_that_the_model_reads"]
    part = f", {stats['read']:,} of them read" if stats["read"] < stats["records"] else ""
    return [
        ("records", f"{stats['records']:,}{part}"),
        ("corrupt", f"{corrupt:,} ({corrupt / max(stats['read'], 1):.2%} of those read)" + (causes and f", {causes}")),
        *([("lost while indexing", _listed(stats["lost"]))] if stats["lost"] else []),
        ("formats", _listed(stats["formats"]) or "none"),
        ("images with the same bytes as another", f"{stats['identical_images']:,}"),
        ("captions", f"{stats['captions']:,}, of which {stats['repeated_captions']:,} repeat another"),
        (f"captions of more tokens than the model's {limit}", f"{stats['captions_with_more_tokens']:,}"),
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def write_report(path: str, title: str, split: str, results: Mapping[str, Stats]) -> None:
    """Writes a page with histograms of each dataset; raises CocaError if it cannot be written."""
    write_page(
        path,
        kind="data statistics",
        title=title or ", ".join(results),
        summary=f"{sum(stats['read'] for stats in results.values()):,} records of the split {split} were read.",
        sections=[Section(name, f"data-{number}", _blocks(one)) for number, (name, one) in enumerate(results.items())],
    )


def _blocks(stats: Stats) -> list[Block]:
    names = [(f"{cause}, such as", "\n".join(names)) for cause, names in stats["corrupt_names"].items()]
    histograms = []
    for words, spread in stats["spreads"].items():
        bins = itertools.pairwise(spread["histogram"]["edges"])
        labels = [f"{low:,}" if high - low <= 1 else f"{low:,} to {high - 1:,}" for low, high in bins]
        histograms.append(Bars(words, list(zip(labels, spread["histogram"]["counts"], strict=True))))
    blocks: list[Block] = [Table((), _facts(stats) + names, "Counts"), Columns([[bars] for bars in histograms])]
    frequent = [(f"{count:,} times", text) for text, count in stats["most_frequent_captions"].items()]
    if frequent:
        blocks += [Heading("Most frequent captions"), Table((), frequent, "Most frequent captions")]
    return blocks


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    split = flags.DEFINE_enum("split", "train", list(SPLITS), "The records that are read.", flag_values=values)
    sample = flags.DEFINE_integer("sample", 100_000, "Records that are read; 0: all.", 0, flag_values=values)
    workers = flags.DEFINE_integer("workers", 4, "Threads that read and decode.", 1, flag_values=values)
    as_json = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.", flag_values=values)
    html = define_path("html", "A file for a page with histograms.", values)

    def run(config: Config) -> None:
        datasets = common.open_datasets(config, split.value, "stats")
        vocabulary = load_vocabulary(config)
        results = {
            name: measure(name, dataset, store, vocabulary, config, sample.value, workers.value)
            for name, (dataset, store) in datasets.items()
        }
        if html.value:
            write_report(html.value, config.data.name, split.value, results)
        if as_json.value:
            print(json.dumps(results, indent=2))
        else:
            print("\n\n".join(as_text(name, stats) for name, stats in results.items()))

    return run
