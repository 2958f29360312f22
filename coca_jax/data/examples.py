"""Training examples by position: a picture of the model's size and one caption, bad records replaced and counted.

A position is an example's place in the endless order of training; an index is a record's place in its store. Chance
(which view of the picture, which of several captions) is seeded by the position, so an example depends on nothing
that was read before it.
"""

import dataclasses
import logging
import math
import threading
from collections import Counter

import numpy as np

from coca_jax.config import Config
from coca_jax.data import digit_scenes, images, records
from coca_jax.data.images import BadRecord
from coca_jax.errors import DataError

_log = logging.getLogger(__name__)
_VERSION = "1"  # part of every fingerprint: raise it where the same position would give another example
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


class SceneExamples:
    """Digit scenes: unbounded, none of them bad."""

    count = None

    def __init__(self, config: Config, split: str):
        self._split, self._size = split, config.model.image.size
        # Seeds are spread over the 2^63 scenes, so that two runs' scenes differ.
        self._offset = config.train.seed * 0x9E3779B97F4A7C15 % 2**62 if split == records.SPLITS[0] else 0
        self.fingerprint = records.digest(_VERSION, "digit_scenes", split)

    def fetch(self, positions: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The examples at positions [n]: uint8 [n, size, size, 3] and their captions."""
        del positions
        scenes = [digit_scenes.scene(index + self._offset, self._split, self._size) for index in indices.tolist()]
        return np.stack([scene.image for scene in scenes]), [scene.caption for scene in scenes]

    def skipped(self) -> Skipped:
        return Skipped({}, {})


class StoreExamples:
    """The records of a store."""

    def __init__(self, config: Config, split: str):
        """Opens the store.

        Raises:
          CocaError: see `records.open_store`.
        """
        self._store = records.open_store(config.data, split)
        self._size, self._seed = config.model.image.size, config.train.seed
        self._augment = config.data.augment if split == records.SPLITS[0] else "none"
        self._ratio, self._where = config.data.max_bad_ratio, config.data.path
        self._bad: dict[int, str] = {}
        self._reads = 0
        self._lock = threading.Lock()
        self.count = len(self._store)
        self.fingerprint = records.digest(_VERSION, self._store.fingerprint, self._augment)

    def fetch(self, positions: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The examples at positions [n], records `indices` [n] of the store or their replacements.

        Raises:
          DataError: too many records are bad.
        """
        pictures, captions = np.empty((len(indices), self._size, self._size, 3), np.uint8), []
        for row, (position, index) in enumerate(zip(positions.tolist(), indices.tolist())):
            pictures[row], caption = self._one(position, index)
            captions.append(caption)
        return pictures, captions

    def _one(self, position: int, index: int) -> tuple[np.ndarray, str]:
        # The next record of the store, not of the shuffled order: that one is most likely in the same batch already.
        for attempt in range(self.count):
            candidate = (index + attempt) % self.count
            try:
                record = self._store[candidate]
                rng = np.random.default_rng((self._seed, position))
                caption = record.captions[int(rng.integers(len(record.captions)))]
                picture = images.augment(
                    images.decode(record.image, smallest=2 * self._size), self._size, self._augment, rng
                )
            except BadRecord as error:
                self._note(candidate, error.cause)
            else:
                self._reads += 1  # a lost update between threads would only delay the verdict
                return picture, caption
        raise DataError(
            f"none of the {self.count} records of {self._where} can be read ({self._causes()}): replace them"
        )

    def _note(self, index: int, cause: str) -> None:
        """Counts a bad record, and stops the run where there are too many of them."""
        with self._lock:
            self._reads += 1
            if index in self._bad:
                return
            self._bad[index] = cause
            _log.warning("record %s is skipped: %s", self._store.name(index), cause)
            # Of a large store only a sample has been seen: three standard deviations of doubt are in its favour.
            sample = self._ratio * min(max(self._reads, _JUDGED), self.count)
            limit = min(self._ratio * self.count, sample + 3 * math.sqrt(sample))
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


def open_examples(config: Config, split: str) -> Examples:
    """The examples of one split ("train", "evaluation") of `config.data`.

    Raises:
      CocaError: the records cannot be found.
    """
    return SceneExamples(config, split) if config.data.task == "digit_scenes" else StoreExamples(config, split)

