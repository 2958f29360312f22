"""Counts what a config's sets hold: pictures, captions, damage.

    python -m coca_jax.tools stats --config=configs/x.py [--sample=100000] [--workers=8] [--html=stats.html] [--json]

reads records, evenly spread over each set (the same ones at each call), decodes every picture and tokenises every
caption. A record is corrupt where training would skip it.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.tools import sets

_NAMES = 10  # of corrupt records, for each cause
_OFTEN = 10  # captions that are shown as the most frequent


@dataclasses.dataclass(frozen=True)
class SetStats:
    """What one set holds; everything but `records` and `damage` is about the records that were read.

    Attributes:
      records: of the split; read: how many of them were read; damage: losses of the store, by cause.
      corrupt: names of records by cause; corrupt_counts: how many they are.
      formats: pictures by file format, "clip" for any video.
      bytes, widths, heights: of each usable picture's file; no width and height of clips.
      identical: pictures whose bytes another one has.
      per_picture: captions of each usable record; characters, tokens: of each caption, tokens with BOS and EOS.
      distinct: captions that differ; often: the most frequent of the repeated ones with their counts.
    """

    records: int
    read: int
    damage: Mapping[str, int]
    corrupt: dict[str, list[str]]
    corrupt_counts: Counter[str]
    formats: Counter[str]
    bytes: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    identical: int
    per_picture: np.ndarray
    characters: np.ndarray
    tokens: np.ndarray
    distinct: int
    often: list[tuple[str, int]]


@dataclasses.dataclass
class _Part:
    """A block of records: what histograms need, and eight bytes for each caption and picture."""

    bad: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    formats: list[str] = dataclasses.field(default_factory=list)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    files: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # (bytes, hash)
    # (record, hash, characters, tokens)
    captions: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    per_picture: list[int] = dataclasses.field(default_factory=list)


def measure(
    source: DatasetConfig,
    store: RecordStore,
    vocabulary: Vocabulary,
    size: int,
    *,
    sample: int = 0,
    workers: int = 1,
    what: str = "records",
) -> SetStats:
    """Reads a set, or `sample` of its records.

    Args:
      source, store: the set.
      vocabulary: counts tokens.
      size: of the model's pictures; what cannot be brought to it is corrupt.
      sample: how many records are read; 0: all.
      workers: threads.
      what: the set's name, for the progress bar.
    """
    indices, texts = sets.spread(len(store), sample), Texts(source, store)
    work = functools.partial(_block, source, store, texts, vocabulary, size)
    parts = []
    with sets.progress(what, len(indices)) as advance:
        for part, block in zip(sets.in_threads(work, sets.blocks(indices), workers), sets.blocks(indices), strict=True):
            parts.append(part)
            advance(len(block))
    bad = [one for part in parts for one in part.bad]
    names = collections.defaultdict(list)
    for index, cause in bad:
        if len(names[cause]) < _NAMES:
            names[cause].append(store.name(index))
    sizes, files, captions = (_rows(parts, *key) for key in (("sizes", 2), ("files", 2), ("captions", 4)))
    _, first, counts = np.unique(captions[:, 1], return_index=True, return_counts=True)
    return SetStats(
        records=len(store),
        read=len(indices),
        damage=dict(store.damage),
        corrupt=dict(names),
        corrupt_counts=Counter(cause for _, cause in bad),
        formats=Counter(kind for part in parts for kind in part.formats),
        bytes=files[:, 0],
        widths=sizes[:, 0],
        heights=sizes[:, 1],
        identical=len(files) - len(np.unique(files[:, 1])),
        per_picture=np.array([count for part in parts for count in part.per_picture], np.int64),
        characters=captions[:, 2],
        tokens=captions[:, 3],
        distinct=len(counts),
        often=_often(store, texts, captions, first, counts),
    )


def _block(
    source: DatasetConfig, store: RecordStore, texts: Texts, vocabulary: Vocabulary, size: int, indices: np.ndarray
) -> _Part:
    part, said = _Part(), []
    for index, record in zip(indices.tolist(), store.read(indices.tolist()), strict=True):
        try:
            if isinstance(record, BadRecord):
                raise record
            captions = texts.all(record)
            views.view(record.image, size, source, None)
        except BadRecord as error:
            part.bad.append((index, error.cause))
            continue
        kind, shape = _header(record)
        part.formats.append(kind)
        part.sizes += [shape] if shape else []
        part.files.append((len(record.image), _hash(record.image)))
        part.per_picture.append(len(captions))
        said += [(index, caption) for caption in captions]
    lengths = vocabulary.lengths([caption for _, caption in said])
    part.captions = [
        (index, _hash(caption.encode()), len(caption), tokens)
        for (index, caption), tokens in zip(said, lengths, strict=True)
    ]
    return part


def _header(record: Record) -> tuple[str, tuple[int, int] | None]:
    """Format and (width, height) of a picture that can be decoded."""
    try:
        with Image.open(io.BytesIO(record.image)) as image:
            return image.format or "?", image.size
    except OSError:
        return "clip", None


def _hash(data: bytes) -> int:
    """63 bits, as int64 holds them."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def _rows(parts: list[_Part], key: str, columns: int) -> np.ndarray:
    return np.array([row for part in parts for row in getattr(part, key)], np.int64).reshape(-1, columns)


def _often(store: RecordStore, texts: Texts, captions: np.ndarray, first: np.ndarray, counts: np.ndarray):
    """The most frequent captions, read again: only their hashes were kept."""
    found = []
    for at in np.argsort(-counts, kind="stable")[:_OFTEN]:
        index, wanted = captions[first[at], :2].tolist()
        (record,) = store.read([index])
        if counts[at] > 1 and isinstance(record, Record):
            text = next((text for text in texts.all(record) if _hash(text.encode()) == wanted), "")
            found.append((text, int(counts[at])))
    return found


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; gives what runs it."""
    split = flags.DEFINE_enum("split", "train", list(records.SPLITS), "Which records.", flag_values=values)
    sample = flags.DEFINE_integer(
        "sample",
        100_000,
        "Records of each set that are read, evenly spread; 0: all.",
        lower_bound=0,
        flag_values=values,
    )
    workers = flags.DEFINE_integer("workers", 4, "Threads that read and decode.", lower_bound=1, flag_values=values)
    as_json = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.", flag_values=values)
    html = flags.DEFINE_string("html", "", "A file for a page with histograms.", flag_values=values)

    def run(config: Config) -> None:
        from coca_jax.tools import stats_report

        opened = sets.stored(config, split.value, "stats")
        vocabulary = sets.vocabulary(config)
        found: dict[str, Any] = {
            name: measure(
                source,
                store,
                vocabulary,
                config.model.image.size,
                sample=sample.value,
                workers=workers.value,
                what=name,
            )
            for name, (source, store) in opened.items()
        }
        if html.value:
            stats_report.write(html.value, config, split.value, found)
        values_ = stats_report.as_dict(found, config.model.text.length)
        print(json.dumps(values_, indent=2) if as_json.value else stats_report.table(values_))

    return run
