"""Counts the contents of a config's datasets: images, captions, damage.

    python -m coca_jax.tools stats --config=configs/x.py [--sample=100000] [--workers=8] [--html=stats.html] [--json]

reads records, evenly spread over each dataset (the same ones at each call), decodes every image and tokenises every
caption. A record is corrupt if training would skip it.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from coca_jax.pages.text_table import text_table
from coca_jax.tools import common

_NAMES = 10  # of corrupt records, for each cause
_FREQUENT = 10  # captions that are shown as the most frequent
_BINS = 12
_ASPECTS = {  # width / height from which on an image counts here
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
Stats = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Part:
    """The measures of a block of records: eight bytes a number, so that whole datasets fit into memory."""

    corrupt: list[tuple[int, str]]  # index and cause
    formats: Counter[str]
    sizes: np.ndarray  # width and height of each image but clips and stored tokens, int64 [images, 2]
    files: np.ndarray  # bytes, hash and number of captions of each usable record, int64 [records, 3]
    captions: np.ndarray  # record, hash, characters and tokens of each caption, int64 [captions, 4]


def measure(
    name: str,
    dataset: DatasetConfig,
    store: RecordStore,
    vocabulary: Vocabulary,
    config: Config,
    sample: int = 0,
    workers: int = 1,
) -> Stats:
    """Reads a dataset, or `sample` of its records.

    Args:
      name: of the dataset, for the progress bar.
      dataset, store: the dataset.
      vocabulary: counts tokens.
      config: a record is corrupt if its image cannot become an input of this config's model.
      sample: how many records are read; 0: all.
      workers: threads.

    Returns:
      Values for `json.dumps`. "records" and "lost" (while indexing, by cause) count the whole split, all others the
      records that were read; "spreads" has extremes, quantiles, mean and histogram of each quantity that has values.
    """
    indices, texts = common.evenly_spread(len(store), sample), Texts(dataset, store)
    work = functools.partial(_measure_block, dataset, store, texts, vocabulary, config.model)
    parts = list(common.in_blocks(work, indices, workers, name))
    corrupt = collections.defaultdict(list)
    for index, cause in (one for part in parts for one in part.corrupt):
        corrupt[cause].append(index)
    sizes, files, captions = (
        np.concatenate([getattr(part, key) for part in parts]) for key in ("sizes", "files", "captions")
    )
    quantities = {
        "file, bytes": files[:, 0],
        "width, pixels": sizes[:, 0],
        "height, pixels": sizes[:, 1],
        "shorter side, pixels": sizes.min(axis=1),
        "captions an image": files[:, 2],
        "caption, characters": captions[:, 2],
        "caption, tokens with BOS and EOS": captions[:, 3],
    }
    aspects = np.histogram(sizes[:, 0] / np.maximum(sizes[:, 1], 1), [*_ASPECTS, np.inf])[0].tolist()
    _, first, counts = np.unique(captions[:, 1], return_index=True, return_counts=True)
    return {
        "records": len(store),
        "read": len(indices),
        "usable": len(files),
        "lost": dict(store.census.damage),
        "corrupt": {cause: len(bad) for cause, bad in corrupt.items()},
        "corrupt_names": {cause: [store.name(index) for index in bad[:_NAMES]] for cause, bad in corrupt.items()},
        "formats": dict(sum((part.formats for part in parts), Counter()).most_common()),
        "aspects": {words: count for words, count in zip(_ASPECTS.values(), aspects, strict=True) if count},
        "spreads": {words: _spread(values) for words, values in quantities.items() if len(values)},
        "identical_images": len(files) - len(np.unique(files[:, 1])),
        "captions": len(captions),
        "repeated_captions": len(captions) - len(counts),
        "most_frequent_captions": _most_frequent(store, texts, captions, first, counts),
        "tokens_that_the_model_reads": config.model.text.length,
        "captions_with_more_tokens": int((captions[:, 3] > config.model.text.length).sum()),
    }


def _measure_block(
    dataset: DatasetConfig,
    store: RecordStore,
    texts: Texts,
    vocabulary: Vocabulary,
    model: ModelConfig,
    indices: list[int],
) -> _Part:
    corrupt, formats, sizes, files, captions = [], Counter[str](), [], [], []
    for index, record in zip(indices, store.read(indices), strict=True):
        try:
            if isinstance(record, BadRecord):
                raise record
            every = texts.all(record)
            decode_input(record.image, model, dataset)
        except BadRecord as error:
            corrupt.append((index, error.cause))
            continue
        try:
            header = decode.open_header(record.image)
            formats[header.format or "unknown"] += 1
            sizes.append(header.size)
        except BadRecord:  # usable nevertheless
            formats["clip" if video.is_clip(record.image) else "stored tokens"] += 1
        files.append((len(record.image), _hash(record.image), len(every)))
        captions += [(index, caption) for caption in every]
    tokens = vocabulary.lengths([caption for _, caption in captions])
    rows = [
        (index, _hash(caption.encode()), len(caption), count)
        for (index, caption), count in zip(captions, tokens, strict=True)
    ]
    return _Part(corrupt, formats, _array(sizes, 2), _array(files, 3), _array(rows, 4))


def _array(rows: Sequence[tuple[int, ...]], columns: int) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, columns)


def _hash(data: bytes) -> int:
    """63 bits, which int64 holds."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def _spread(values: np.ndarray) -> dict[str, Any]:
    low, high = int(values.min()), int(values.max())
    edges = np.unique(np.linspace(low, high + 1, _BINS + 1).astype(np.int64))
    p5, median, p95 = np.quantile(values, [0.05, 0.5, 0.95], method="nearest").tolist()
    quantiles = {"min": low, "p5": p5, "median": median, "p95": p95, "max": high}
    histogram = {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}
    return quantiles | {"mean": round(float(values.mean()), 3), "histogram": histogram}


def _most_frequent(
    store: RecordStore, texts: Texts, captions: np.ndarray, first: np.ndarray, counts: np.ndarray
) -> dict[str, int]:
    """The captions that occur most often, read again, for only their hashes were kept."""
    result = {}
    for at in np.argsort(-counts, kind="stable")[:_FREQUENT]:
        index, wanted = captions[first[at], :2].tolist()
        (record,) = store.read([index])
        if counts[at] > 1 and isinstance(record, Record):
            text = next((text for text in texts.all(record) if _hash(text.encode()) == wanted), "")
            result[text] = int(counts[at])
    return result


def as_text(name: str, stats: Stats) -> str:
    """The statistics as a table and lines."""
    rows: list[Sequence[str]] = [(name, "min", "5 %", "median", "95 %", "max", "mean")]
    for words, spread in stats["spreads"].items():
        quantiles = (f"{spread[key]:,}" for key in ("min", "p5", "median", "p95", "max"))
        rows.append((words, *quantiles, f"{spread['mean']:,.1f}"))
    lines = [text_table(rows), *(f"{label}: {value}" for label, value in _facts(stats))]
    lines += [f"  such as {each}" for names in stats["corrupt_names"].values() for each in names[:3]]
    lines += [f"aspect (width:height): {_listed(stats['aspects'])}"] if stats["aspects"] else []
    frequent = stats["most_frequent_captions"].items()
    lines += ["most frequent captions:"] if frequent else []
    lines += [f"  {count:,} x {text if len(text) <= 80 else text[:79] + '…'}" for text, count in frequent]
    return "\n".join(lines)


def _facts(stats: Stats) -> list[tuple[str, str]]:
    corrupt, causes = stats["read"] - stats["usable"], _listed(stats["corrupt"])
    part = f", {stats['read']:,} of them read" if stats["read"] < stats["records"] else ""
    return [
        ("records", f"{stats['records']:,}{part}"),
        ("corrupt", f"{corrupt:,} ({corrupt / max(stats['read'], 1):.2%} of those read)" + (causes and f", {causes}")),
        *([("lost while indexing", _listed(stats["lost"]))] if stats["lost"] else []),
        ("formats", _listed(stats["formats"]) or "none"),
        ("images with the same bytes as another", f"{stats['identical_images']:,}"),
        ("captions", f"{stats['captions']:,}, of which {stats['repeated_captions']:,} repeat another"),
        (
            f"captions longer than the {stats['tokens_that_the_model_reads']} tokens that the model reads",
            f"{stats['captions_with_more_tokens']:,}",
        ),
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def write_report(path: str, title: str, split: str, results: Mapping[str, Stats]) -> None:
    """Writes a page with histograms of each dataset.

    Raises:
      CocaError: the file cannot be written.
    """
    write_page(
        path,
        kind="data statistics",
        title=title or ", ".join(results),
        summary=f"{sum(stats['read'] for stats in results.values()):,} records of the split {split} were read.",
        sections=[Section(name, f"data-{number}", _blocks(one)) for number, (name, one) in enumerate(results.items())],
    )


def _blocks(stats: Stats) -> list[Block]:
    names = [(f"{cause}, such as", "\n".join(names)) for cause, names in stats["corrupt_names"].items()]
    histograms = [Bars("width : height", list(stats["aspects"].items()))]
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
