"""Training examples by position: one image and one text, bad records replaced and counted.

A position is an example's place in the endless order of its source; an index is a record's place in its store. Chance
(in the view of the image, in the choice among texts) is seeded by the position, so that an example depends on nothing
that was read before it.
"""

import dataclasses
import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from coca_jax.config import Config, differences
from coca_jax.data.digit_scenes.scenes import scene
from coca_jax.data.digit_scenes.tasks import CLASSES, task_scene
from coca_jax.data.images import augment
from coca_jax.data.images.inputs import decode_input
from coca_jax.data.pipeline.order import Order
from coca_jax.data.pipeline.read_ahead import Reader
from coca_jax.data.records.open import SPLITS, open_records, summary
from coca_jax.data.records.record import BadRecord, Record
from coca_jax.data.text.captions import Texts, without_labels
from coca_jax.data.text.classes import answers, class_number
from coca_jax.errors import DataError
from coca_jax.storage.files import digest

_log = logging.getLogger(__name__)
_VERSION = "5"  # part of every fingerprint: raise it when the same position gives another example
# Keys of a dataset that change no example, or name files whose contents other fingerprints hold.
_ELSEWHERE = ("path", "exclude_keys", "class_names", "prompts", "evaluation_clips", "evaluation_crops")
_JUDGED = 200  # records to read before their share of bad ones is meaningful
_NAMED = 10  # bad records of each cause
_TOLERATED = 2  # bad records never stop a run by themselves, however small the store


Known = Callable[[int], bool]  # whether the features of the record of an index are kept already


def none_known(*record: int) -> bool:
    """The answer for a record where no features are kept."""
    del record
    return False


@dataclasses.dataclass(frozen=True)
class Skipped:
    """The records that could not be used so far: numbers of distinct ones, and names of the first ten, by cause."""

    by_cause: dict[str, int]
    names: dict[str, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """An example whose image is not decoded yet."""

    position: int  # in the source's order
    index: int  # of the record
    image: bytes | BadRecord  # encoded, or why the record cannot be used
    text: str = ""
    label: int = 0  # of a run with a head: the class
    answers: tuple[str, ...] = ()  # to a question, from several persons
    answer: str = ""  # one of these
    second_image: bytes = b""  # of a pair
    rng: np.random.Generator | None = None  # the chance left for the image's view; None: the evaluation's view


class SceneExamples:
    """Digit scenes, unbounded and never bad; methods as those of `StoredExamples`."""

    count = None

    def __init__(self, config: Config, name: str, split: str, classes: Sequence[str] = ()):
        self._task = config.data.sources[name].dataset.task
        self._labels = {name: number for number, name in enumerate(classes)}  # a mixture has its own order
        self._split, self._size = split, config.model.image.size
        # Seeds are spread over the 2^63 scenes, so that two runs' scenes differ.
        self._offset = config.train.seed * 0x9E3779B97F4A7C15 % 2**62 if split == SPLITS[0] else 0
        self.fingerprint = digest(_VERSION, "digit_scenes", split, *([self._task] if self._task != "captions" else []))
        self.summary = "digit scenes, made as they are needed"

    def reader(self, ahead_bytes: int) -> None:
        """There is nothing to read."""

    def indices(self, positions: np.ndarray) -> np.ndarray:
        return positions

    def read(self, position: int, index: int, reader: None) -> Example:
        return Example(position, index, b"")

    def decode(self, example: Example, out: np.ndarray, known: Known = none_known) -> Example:
        index = example.index + self._offset
        if self._task == "captions":
            drawn = scene(index, self._split, self._size)
            out[...] = drawn.image
            return dataclasses.replace(example, text=drawn.caption)
        made = task_scene(self._task, index, self._split, self._size)
        out[...] = made.image
        answer = CLASSES[self._task][made.label]
        label = self._labels.get(answer, -1)  # -1: of a question, whose rarer answers may be none of the run's
        return dataclasses.replace(example, text=made.text, label=label, answers=(answer,), answer=answer)

    def name(self, index: int) -> str:
        return f"scene {index + self._offset} of {self._split}"

    def skipped(self) -> Skipped:
        return Skipped({}, {})


class StoredExamples:
    """Examples of the `count` records of a store.

    Attributes:
      fingerprint: hex digits that change with the examples.
      summary: the log's line on the records that there are, held out and left out.
      bad: the cause of each record that could not be used so far, by index.
    """

    def __init__(self, config: Config, name: str, split: str, lanes: int, seed: int | None, classes: Sequence[str]):
        """Opens the store; arguments and errors as `open_examples`."""
        source, number = config.data.sources[name], list(config.data.sources).index(name)
        self._dataset, self._augmentation, self._model = source.dataset, source.augmentation, config.model
        self._store = open_records(source.dataset, split)
        self._labels = Texts(source.dataset, self._store)
        self._texts, self._objective = self._labels, config.objective
        if config.objective.reads_text:  # beside its labels
            self._texts = Texts(without_labels(source.dataset), self._store)
        self._classes = {name: number for number, name in enumerate(classes)}
        self._training = split == SPLITS[0]
        self._seed, self._number = config.train.seed, number
        self._one_view = config.train.cache_features  # of each record, whatever its position
        self._max_bad_ratio = config.data.max_bad_ratio
        self.bad: dict[int, str] = {}
        self._reads = 0
        self._lock = threading.Lock()
        self.count = len(self._store)
        self._stride = _stride(self.count)
        self.order = Order(self.count, lanes, config.data.block, seed, number)
        changed = {key: value for key, value in differences(source.dataset).items() if key not in _ELSEWHERE}
        self.fingerprint = digest(
            _VERSION,
            self._store.fingerprint,
            json.dumps([changed, differences(source.augmentation)], sort_keys=True),
            str(self.order.block),
            self._labels.fingerprint,
            augment.BACKEND,
        )
        self.summary = summary(source.dataset, self._store)

    def reader(self, ahead_bytes: int) -> Reader:
        """A reader for `read`."""
        return Reader(self._store, self.order, ahead_bytes)

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The records at positions [n]: int64 [n]."""
        return self.order.indices(positions)

    def read(self, position: int, index: int, reader: Reader) -> Example:
        """The example at a position, of record `index`; its text is drawn and its image not decoded."""
        return self._drawn(position, index, reader.record(position, index))

    def decode(self, example: Example, out: np.ndarray, known: Known = none_known) -> Example:
        """Writes an example's image, or that of its record's replacement, to `out`; returns the one used, without image.

        Nothing is written for a record for whose index `known` is True.

        Raises:
          DataError: too many records are bad.
        """
        # Far away in the store: the next records may be of the same lost shard. Not the next of the shuffled order,
        # which is most likely in the same batch already.
        for attempt in range(self.count):
            if attempt:
                index = (example.index + self._stride) % self.count
                example = self._drawn(example.position, index, self._store.read([index])[0])
            try:
                if isinstance(example.image, BadRecord):
                    raise example.image
                if not known(example.index):
                    self._decode(example, example.image, out)
            except BadRecord as error:
                self._add_bad(example.index, error.cause)
            else:
                self._reads += 1  # a lost update between threads would only delay the verdict
                return dataclasses.replace(example, image=b"")
        raise DataError(
            f"none of the {self.count} records of {self._dataset.path} can be read ({self._causes()}): replace them"
        )

    def _decode(self, example: Example, image: bytes, out: np.ndarray) -> None:
        arguments = (self._model, self._dataset, example.rng, self._augmentation)
        if self._objective.name == "pairs":
            for one, part in zip((image, example.second_image), out, strict=True):
                part[...] = decode_input(one, *arguments)
        else:  # an image that stands still fills all frames
            out[...] = decode_input(image, *arguments)

    def name(self, index: int) -> str:
        """The path at which a person finds the record."""
        return self._store.name(index)

    def skipped(self) -> Skipped:
        """The records that could not be used so far."""
        bad = dict(self.bad)  # which threads may be adding to
        by_cause = Counter(bad.values())
        first = {cause: [index for index in bad if bad[index] == cause][:_NAMED] for cause in by_cause}
        names = {cause: [self._store.name(index) for index in indices] for cause, indices in first.items()}
        return Skipped(dict(by_cause), names)

    def _drawn(self, position: int, index: int, record: Record | BadRecord) -> Example:
        try:
            if isinstance(record, BadRecord):
                raise record
            rng = np.random.default_rng((self._seed, position, self._number)) if self._training else None
            text = self._texts.all(record)[0] if rng is None else self._texts.draw(record, rng)
            example = Example(position, index, record.image, text, rng=rng, second_image=record.second_image)
            if self._objective.has_head:
                example = self._with_truth(example, record)
            if self._training and self._one_view:  # the same frames of a clip in every epoch, and after a restart
                example = dataclasses.replace(example, rng=np.random.default_rng((self._seed, index, self._number)))
            return example
        except BadRecord as error:
            return Example(position, index, error)

    def _with_truth(self, example: Example, record: Record) -> Example:
        """The example with its class or answers; BadRecord if it has none."""
        if self._objective.name == "vqa":
            given = answers(record.metadata, self._dataset)
            if not given:
                raise BadRecord("no answer")
            answer = given[int(example.rng.integers(len(given)))] if example.rng else given[0]
            return dataclasses.replace(example, answers=given, answer=answer)
        return dataclasses.replace(example, label=class_number(self._labels.labels(record.metadata), self._classes))

    def _add_bad(self, index: int, cause: str) -> None:
        """Counts and logs a bad record; raises DataError if there are too many."""
        with self._lock:
            self._reads += 1
            if index in self.bad:
                return
            self.bad[index] = cause
            reads, bad = self._reads, len(self.bad)
        # Without the lock: a name may take a look at a disk or a bucket.
        _log.warning("record %s is skipped: %s", self._store.name(index), cause)
        # Only a sample of a large store has been read: allow for three standard deviations, those of records that are
        # read and lost a block at a time.
        sample = self._max_bad_ratio * min(max(reads, _JUDGED), self.count)
        limit = min(self._max_bad_ratio * self.count, sample + 3 * math.sqrt(sample * self.order.block))
        if bad > max(_TOLERATED, limit):
            first = ", ".join(self._store.name(index) for index in list(self.bad)[:5])
            raise DataError(
                f"more than {self._max_bad_ratio:.2%} of the records of {self._dataset.path} cannot be read "
                f"({self._causes()}; such as {first}): replace them, or raise data.max_bad_ratio"
            )

    def _causes(self) -> str:
        bad = dict(self.bad)
        return ", ".join(f"{cause}: {number}" for cause, number in Counter(bad.values()).most_common())


Examples = SceneExamples | StoredExamples


def _stride(count: int) -> int:
    """The step from a bad record to its replacement: such steps are spread evenly and reach every record of `count`."""
    stride = int(count * 0.618) + 1  # the golden section
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def open_examples(
    config: Config, name: str, split: str, lanes: int, seed: int | None, classes: Sequence[str] = ()
) -> Examples:
    """The examples of one split ("train", "evaluation") of the source `name` of `config.data`.

    Args:
      lanes: positions a step.
      seed: of the order; None: the store's own.
      classes: the run's class names, if it has a head.

    Raises:
      CocaError: the records, or the files of class names and prompts, cannot be read.
    """
    if config.data.sources[name].dataset.format == "digit_scenes":
        return SceneExamples(config, name, split, classes)
    return StoredExamples(config, name, split, lanes, seed, classes)
