"""Counts the contents of a config's datasets: images, captions, damage.

    python -m coca_jax.tools stats --config=configs/x.py [--sample=100000] [--workers=8] [--html=stats.html] [--json]

reads records, evenly spread over each dataset (the same ones at each call), decodes every image and tokenises every
caption. A record is corrupt if training would skip it.
"""

import collections
import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.images import augment, decode
from coca_jax.data.records.open import SPLITS
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.tools import common, stats_report
from coca_jax.tools.stats_report import ASPECTS, Corrupt, DatasetStats, Spread

_NAMES = 10  # of corrupt records, for each cause
_FREQUENT = 10  # captions that are shown as the most frequent
_BINS = 12


@dataclasses.dataclass(frozen=True)
class _Part:
    """The measures of a block of records: eight bytes a number, so that whole datasets fit into memory.

    Attributes:
      corrupt: index and cause of each corrupt record.
      formats: images by file format.
      sizes: width and height of each image, int64 [images, 2]; of clips none.
      files: bytes, hash and number of captions of each usable record, int64 [records, 3].
      captions: record, hash, characters and tokens of each caption, int64 [captions, 4].
    """

    corrupt: list[tuple[int, str]]
    formats: Counter[str]
    sizes: np.ndarray
    files: np.ndarray
    captions: np.ndarray


def measure(
    name: str,
    dataset: DatasetConfig,
    store: RecordStore,
    vocabulary: Vocabulary,
    config: Config,
    *,
    sample: int = 0,
    workers: int = 1,
) -> DatasetStats:
    """Reads a dataset, or `sample` of its records.

    Args:
      name: of the dataset, for the progress bar.
      dataset, store: the dataset.
      vocabulary: counts tokens.
      config: a record is corrupt if its image cannot be brought to the size of this config's model.
      sample: how many records are read; 0: all.
      workers: threads.
    """
    indices, texts = common.evenly_spread(len(store), sample), Texts(dataset, store)
    work = functools.partial(_measure_block, dataset, store, texts, vocabulary, config.model.image.size)
    parts = list(common.in_blocks(work, indices, workers, name))
    names = collections.defaultdict(list)
    for index, cause in (one for part in parts for one in part.corrupt):
        names[cause].append(index)
    sizes, files, captions = (
        np.concatenate([getattr(part, key) for part in parts]) for key in ("sizes", "files", "captions")
    )
    _, first, counts = np.unique(captions[:, 1], return_index=True, return_counts=True)
    aspects = np.histogram(sizes[:, 0] / np.maximum(sizes[:, 1], 1), [*ASPECTS, np.inf])[0].tolist()
    return DatasetStats(
        records=len(store),
        read=len(indices),
        usable=len(files),
        lost=dict(store.damage),
        corrupt={
            cause: Corrupt(len(bad), [store.name(index) for index in bad[:_NAMES]]) for cause, bad in names.items()
        },
        formats=dict(sum((part.formats for part in parts), Counter()).most_common()),
        bytes=_spread(files[:, 0]),
        width=_spread(sizes[:, 0]),
        height=_spread(sizes[:, 1]),
        shorter_side=_spread(sizes.min(axis=1)),
        aspect=dict(zip(ASPECTS.values(), aspects, strict=True)),
        identical_images=len(files) - len(np.unique(files[:, 1])),
        captions=len(captions),
        captions_per_image=_spread(files[:, 2]),
        characters=_spread(captions[:, 2]),
        tokens=_spread(captions[:, 3]),
        tokens_read=config.model.text.length,
        longer_captions=int((captions[:, 3] > config.model.text.length).sum()),
        repeated_captions=len(captions) - len(counts),
        most_frequent=_most_frequent(store, texts, captions, first, counts),
    )


def _measure_block(
    dataset: DatasetConfig, store: RecordStore, texts: Texts, vocabulary: Vocabulary, size: int, indices: list[int]
) -> _Part:
    corrupt, formats, sizes, files, captions = [], Counter[str](), [], [], []
    for index, record in zip(indices, store.read(indices), strict=True):
        try:
            if isinstance(record, BadRecord):
                raise record
            own = texts.all(record)
            augment.view(record.image, size, dataset, None)
        except BadRecord as error:
            corrupt.append((index, error.cause))
            continue
        try:
            header = decode.open_header(record.image)
            formats[header.format or "unknown"] += 1
            sizes.append(header.size)
        except BadRecord:  # usable, so it is a clip
            formats["clip"] += 1
        files.append((len(record.image), _hash(record.image), len(own)))
        captions += [(index, caption) for caption in own]
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


def _spread(values: np.ndarray) -> Spread | None:
    if not len(values):
        return None
    low, high = int(values.min()), int(values.max())
    edges = np.unique(np.linspace(low, high + 1, _BINS + 1).astype(np.int64))
    p5, median, p95 = np.quantile(values, [0.05, 0.5, 0.95], method="nearest").tolist()
    counts = np.histogram(values, edges)[0].tolist()
    return Spread(low, p5, median, p95, high, round(float(values.mean()), 3), edges.tolist(), counts)


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


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    split = flags.DEFINE_enum("split", "train", list(SPLITS), "The records that are read.", flag_values=values)
    sample = flags.DEFINE_integer(
        "sample",
        100_000,
        "Records of each dataset that are read, evenly spread; 0: all.",
        lower_bound=0,
        flag_values=values,
    )
    workers = flags.DEFINE_integer("workers", 4, "Threads that read and decode.", lower_bound=1, flag_values=values)
    as_json = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.", flag_values=values)
    html = flags.DEFINE_string("html", "", "A file for a page with histograms.", flag_values=values)

    def run(config: Config) -> None:
        datasets = common.open_datasets(config, split.value, "stats")
        vocabulary = common.load_vocabulary(config)
        results = {
            name: measure(name, dataset, store, vocabulary, config, sample=sample.value, workers=workers.value)
            for name, (dataset, store) in datasets.items()
        }
        if html.value:
            stats_report.write_report(html.value, config.data.name, split.value, results)
        if as_json.value:
            print(json.dumps({name: dataclasses.asdict(one) for name, one in results.items()}, indent=2))
        else:
            print("\n\n".join(stats_report.as_text(name, one) for name, one in results.items()))

    return run
