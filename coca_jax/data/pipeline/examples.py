"""Training examples by position: a view of a picture and one text, bad records replaced and counted.

A position is an example's place in the endless order of its source; an index is a record's place in its store. Chance
(which view of the picture, which of several texts) is seeded by the position, so an example depends on nothing
that was read before it.
"""

import dataclasses
import json
import logging
import math
import threading
from collections import Counter

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.data.images import augment as views
from coca_jax.data.pipeline.order import Order
from coca_jax.data.pipeline.read_ahead import Reader
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, Record
from coca_jax.data.text.captions import Texts
from coca_jax.errors import DataError
from coca_jax.storage import files as storage

_log = logging.getLogger(__name__)
_VERSION = "4"  # part of every fingerprint: raise it where the same position would give another example
# Keys of a source that say nothing of its examples, or name files whose contents other fingerprints hold.
_ELSEWHERE = ("path", "exclude_keys", "class_names", "prompts")
_JUDGED = 200  # records read before their share of bad ones says something
_TOLERATED = 2  # bad records never stop a run by themselves, however small the store


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What could not be used so far.

    Attributes:
      by_cause: distinct records (and broken tars) by cause.
      names: the first ten of each cause.
    """

    by_cause: dict[str, int]
    names: dict[str, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """An example whose picture is still encoded.

    Attributes:
      position: in the source's order.
      index: of the record.
      picture: its bytes, or why it cannot be used.
      text: one line.
      rng: the chance that is left for the view; None is the evaluation's.
    """

    position: int
    index: int
    picture: bytes | BadRecord
    text: str = ""
    rng: np.random.Generator | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A picture and what is said of it.

    Attributes:
      view: uint8 [size, size, 3]; of a source with frames [frames, size, size, 3].
      text: one line.
      index: of the record that it was made of.
    """

    view: np.ndarray
    text: str
    index: int


class SceneExamples:
    """Digit scenes: unbounded, none of them bad."""

    count = None

    def __init__(self, config: Config, split: str):
        self._split, self._size = split, config.model.image.size
        # Seeds are spread over the 2^63 scenes, so that two runs' scenes differ.
        self._offset = config.train.seed * 0x9E3779B97F4A7C15 % 2**62 if split == records.SPLITS[0] else 0
        self.fingerprint = storage.digest(_VERSION, "digit_scenes", split)

    def reader(self, ahead_bytes: int) -> None:
        """Nothing needs to be read."""

    def indices(self, positions: np.ndarray) -> np.ndarray:
        return positions

    def draft(self, position: int, index: int, reader: None = None) -> Draft:
        """The example at a position, of which nothing is drawn yet."""
        del reader
        return Draft(position, index, b"")

    def example(self, draft: Draft, out: np.ndarray) -> Example:
        """The example of a draft, its view written to `out`."""
        scene = digit_scenes.scene(draft.index + self._offset, self._split, self._size)
        out[...] = scene.image
        return Example(out, scene.caption, draft.index)

    def name(self, index: int) -> str:
        """What a person calls the record."""
        return f"scene {index + self._offset} of {self._split}"

    def skipped(self) -> Skipped:
        return Skipped({}, {})


class StoreExamples:
    """The records of a store."""

    def __init__(self, config: Config, source: DatasetConfig, split: str, lanes: int, number: int, seed: int | None):
        """Opens the store.

        Args:
          source: one of `config.data.sources`, the `number`-th.
          lanes: positions a step.
          seed: of the order; None: the store's own.

        Raises:
          CocaError: see `records.open_records` and `texts.Texts`.
        """
        self._source, self._store = source, records.open_records(source, split)
        self._texts = Texts(source, self._store)
        self._training = split == records.SPLITS[0]
        self._size, self._seed, self._number = config.model.image.size, config.train.seed, number
        self._ratio, self._where = config.data.max_bad_ratio, source.path
        self._bad: dict[int, str] = {}
        self._reads = 0
        self._lock = threading.Lock()
        self.count = len(self._store)
        self._stride = _stride(self.count)
        self.order = Order(self.count, lanes, config.data.block, seed, number)
        keys = (field.name for field in dataclasses.fields(DatasetConfig) if field.name not in _ELSEWHERE)
        described = {key: getattr(source, key) for key in keys}
        self.fingerprint = storage.digest(
            _VERSION,
            self._store.fingerprint,
            json.dumps(described, sort_keys=True),
            str(self.order.block),
            self._texts.fingerprint,
            views.BACKEND,
        )

    def reader(self, ahead_bytes: int) -> Reader:
        """What reads the records for `example`; see `Reader`."""
        return Reader(self._store, self.order, ahead_bytes)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Which records stand at positions [n]: int64 [n]."""
        return self.order.indices(positions)

    def draft(self, position: int, index: int, reader: Reader) -> Draft:
        """What the example at a position is made of, by record `index`."""
        return self._drawn(position, index, reader.record(position, index))

    def example(self, draft: Draft, out: np.ndarray) -> Example:
        """The example of a draft, or of its record's replacement; the view is written to `out`.

        Raises:
          DataError: too many records are bad.
        """
        # Far away in the store: the next records may be of the same lost shard. Not the next of the shuffled order,
        # which is most likely in the same batch already.
        for attempt in range(self.count):
            if attempt:
                candidate = (draft.index + self._stride) % self.count
                draft = self._drawn(draft.position, candidate, self._store.read([candidate])[0])
            try:
                if isinstance(draft.picture, BadRecord):
                    raise draft.picture
                views.view(draft.picture, self._size, self._source, draft.rng, out)
            except BadRecord as error:
                self._note(draft.index, error.cause)
            else:
                self._reads += 1  # a lost update between threads would only delay the verdict
                return Example(out, draft.text, draft.index)
        raise DataError(
            f"none of the {self.count} records of {self._where} can be read ({self._causes()}): replace them"
        )

    def name(self, index: int) -> str:
        """Where a person finds the record."""
        return self._store.name(index)

    def _drawn(self, position: int, index: int, record: Record | BadRecord) -> Draft:
        try:
            if isinstance(record, BadRecord):
                raise record
            if not self._training:
                return Draft(position, index, record.image, self._texts.all(record)[0])
            rng = np.random.default_rng((self._seed, position, self._number))
            return Draft(position, index, record.image, self._texts.draw(record, rng), rng)
        except BadRecord as error:
            return Draft(position, index, error)

    def _note(self, index: int, cause: str) -> None:
        """Counts a bad record, and stops the run where there are too many of them."""
        with self._lock:
            self._reads += 1
            if index in self._bad:
                return
            self._bad[index] = cause
            _log.warning("record %s is skipped: %s", self._store.name(index), cause)
            # Of a large store only a sample has been seen: three standard deviations of doubt are in its favour, those
            # of records that are read and lost a block at a time.
            sample = self._ratio * min(max(self._reads, _JUDGED), self.count)
            limit = min(self._ratio * self.count, sample + 3 * math.sqrt(sample * self.order.block))
            if len(self._bad) <= max(_TOLERATED, limit):
                return
            worst = ", ".join(self._store.name(bad) for bad in list(self._bad)[:5])
            raise DataError(
                f"more than {self._ratio:.2%} of the records of {self._where} cannot be read ({self._causes()}; "
                f"such as {worst}): replace them, or raise data.max_bad_ratio"
            )

    def _causes(self) -> str:
        return ", ".join(f"{cause}: {number}" for cause, number in Counter(self._bad.values()).most_common())

    def skipped(self) -> Skipped:
        with self._lock:
            bad = dict(self._bad)
        names: dict[str, list[str]] = {}
        for index, cause in bad.items():
            if len(names.setdefault(cause, [])) < 10:
                names[cause].append(self._store.name(index))
        return Skipped(dict(Counter(self._store.damage) + Counter(bad.values())), names)


Examples = SceneExamples | StoreExamples


def _stride(count: int) -> int:
    """From a bad record to its replacement: so many such steps are spread evenly and reach every record of `count`."""
    stride = int(count * 0.618) + 1  # the golden section
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def view_shape(config: Config) -> tuple[int, ...]:
    """(size, size, 3); of a config whose sources have frames (frames, size, size, 3)."""
    size, frames = config.model.image.size, max(source.frames for source in config.data.sources.values())
    return (frames,) * bool(frames) + (size, size, 3)


def open_examples(config: Config, name: str, split: str, lanes: int | None = None, seed: int | None = None) -> Examples:
    """The examples of one split ("train", "evaluation") of a source of `config.data`.

    Args:
      lanes: positions a step; by default the batch size.
      seed: of the order; None: the store's own.

    Raises:
      CocaError: the records cannot be found.
    """
    source = config.data.sources[name]
    if source.format == "digit_scenes":
        return SceneExamples(config, split)
    number = list(config.data.sources).index(name)
    return StoreExamples(config, source, split, lanes or config.train.batch_size, number, seed)
