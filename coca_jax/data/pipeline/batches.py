"""Batches as a function of the step: the data's whole state is the step, so resuming costs nothing.

A batch is cut into small groups of rows; threads read, decode and tokenise group after group (decoders let go of the
interpreter meanwhile), and each row is written where it belongs in the batch's arrays. Some batches are in the making
while one is used; in which order threads get to them changes no byte.
"""

import collections
import dataclasses
import hashlib
import os
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from coca_jax.config import Config
from coca_jax.data.pipeline import examples
from coca_jax.data.pipeline import mixture as mixtures
from coca_jax.data.pipeline.examples import Skipped
from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import Vocabulary, check_against_model
from coca_jax.errors import CocaError, DataError
from coca_jax.storage import files as storage

_PREFETCH = 2  # batches in the making besides the one in use
_GROUP = 16  # rows that a thread makes at a time, at most
Batch = dict[str, np.ndarray]


def _most_kept() -> int:
    """4 GiB, or an eighth of a small machine's memory."""
    return min(4 * 2**30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


_KEPT_BYTES = _most_kept()  # of encoded pictures read before they are due, over all sources


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a row of a batch comes from.

    Attributes:
      row: of the whole batch.
      source: its name.
      position: in the source's order.
      record: where a person finds the record that was used.
      text: what is said of it, before it was cut to the model's length.
    """

    row: int
    source: str
    position: int
    record: str
    text: str


class Pipeline:
    """The batches of `config.data`, or those of their rows that one host of several makes.

    Attributes:
      fingerprint: hex digits that change where the same step would give another batch; the number of hosts and the
        folder's place do not matter.
      layout: which source each row of a batch comes from.
    """

    def __init__(
        self,
        config: Config,
        vocabulary: Vocabulary,
        *,
        split: str = "train",
        rows: Sequence[int] | None = None,
        threads: int | None = None,
    ):
        """Opens the records; reads none.

        Args:
          config: the run's.
          vocabulary: must fit the model's.
          split: "train": shuffled and augmented. "evaluation": held-out records in their order, plain.
          rows: which rows of each batch are made, b of them; by default all.
          threads: that make them; by default half of the cores, at most 32.

        Raises:
          CocaError: the records cannot be found, or the vocabulary does not fit.
        """
        check_against_model(vocabulary, config.model.text)
        self._config, self._vocabulary = config, vocabulary
        sources, batch_size = config.data.sources, config.train.batch_size
        self.layout = mixtures.layout({name: getattr(one, "share", 1.0) for name, one in sources.items()}, batch_size)
        self._rows = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
        self._threads = threads or max(1, min(32, (os.cpu_count() or 1) // 2))  # the other cores are JAX's
        seed = config.train.seed if split == records.SPLITS[0] else None
        self._sources = [
            examples.open_examples(config, name, split, quota, seed)
            for name, quota in zip(self.layout.names, self.layout.quotas, strict=True)
        ]
        self._shape = examples.view_shape(config)
        self.fingerprint = storage.digest(
            split,
            str(config.train.seed),
            str(batch_size),
            str(self._shape),
            str(config.model.text.length),
            hashlib.sha256(vocabulary.model_bytes).hexdigest(),
            *(
                part
                for name, quota, one in zip(self.layout.names, self.layout.quotas, self._sources, strict=True)
                for part in (name, str(quota), one.fingerprint)
            ),
        )

    @property
    def skipped_by_source(self) -> dict[str, Skipped]:
        """For each source, the records that could not be used so far, by cause, with names."""
        return {name: one.skipped() for name, one in zip(self.layout.names, self._sources, strict=True)}

    @property
    def skipped(self) -> Skipped:
        """The same of all sources together."""
        total, names = Counter(), collections.defaultdict(list)
        for one in self.skipped_by_source.values():
            total.update(one.by_cause)
            for cause, some in one.names.items():
                names[cause] += some
        return Skipped(dict(total), dict(names))

    def metrics(self, step: int) -> dict[str, float]:
        """Of each source NAME, after so many steps: `data/NAME/pairs` of a batch, `data/NAME/epoch` (how often each of
        its records was seen), `data/NAME/skipped` (distinct records that this host could not use)."""
        found = {}
        for name, quota, one in zip(self.layout.names, self.layout.quotas, self._sources, strict=True):
            found[f"data/{name}/pairs"] = quota
            if one.count is not None:
                found[f"data/{name}/epoch"] = step * quota / one.count
                found[f"data/{name}/skipped"] = sum(one.skipped().by_cause.values())
        return found

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0).

        It has "image", uint8 [b, size, size, 3] (with frames [b, frames, size, size, 3]); "text", int32 [b, length];
        and "source", int32 [b], each row's place in `layout.names`.

        Raises:
          DataError: too many bad records, or a text longer than the model reads under data.long_text = error.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            return self._begin(step, [one.reader(0) for one in self._sources], pool).result()

    def iterate(self, start_step: int = 0, prefetch: int = _PREFETCH) -> "Batches":
        """The batches from `start_step` on, without end.

        Args:
          prefetch: how many are in the making in the background, besides the one in use; 0: each is made when asked for.

        Raises:
          DataError: as `batch`, when the batch in question is due.
        """
        own = np.bincount(self.layout.source[self._rows], minlength=len(self._sources)) / len(self._rows)
        readers = [one.reader(int(_KEPT_BYTES * share)) for one, share in zip(self._sources, own, strict=True)]
        pool = ThreadPoolExecutor(self._threads, "batches")
        return Batches(lambda step: self._begin(step, readers, pool), start_step, prefetch, pool)

    def origins(self, step: int) -> list[Origin]:
        """Where each row of the batch of a step comes from."""
        found = []
        for row, number, position, index in zip(
            self._rows.tolist(), *(x.tolist() for x in self._places(step)), strict=True
        ):
            one = self._sources[number]
            example = one.example(one.draft(position, index, one.reader(0)), np.empty(self._shape, np.uint8))
            found.append(Origin(row, self.layout.names[number], position, one.name(example.index), example.text))
        return found

    def _places(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, position and index of the record of each of this host's rows, [b] each."""
        source, place = self.layout.source[self._rows], self.layout.place[self._rows]
        positions = step * np.array(self.layout.quotas, np.int64)[source] + place
        indices = np.empty_like(positions)
        for number, one in enumerate(self._sources):
            own = source == number
            indices[own] = one.indices(positions[own])
        return source, positions, indices

    def _begin(self, step: int, readers: list, pool: ThreadPoolExecutor) -> "_Pending":
        """Has the threads of the pool make the batch of a step."""
        source, positions, indices = self._places(step)
        length = self._config.model.text.length
        image = np.empty((len(source), *self._shape), np.uint8)
        text = np.empty((len(source), length), np.int32)

        def make(rows: range) -> None:
            own = slice(rows.start, rows.stop)
            told = list(zip(rows, source[own].tolist(), positions[own].tolist(), indices[own].tolist(), strict=True))
            # All records first, then all pictures: between two decodings the interpreter would find its caches cold.
            drafts = [self._sources[number].draft(*at, readers[number]) for _, number, *at in told]
            said = [
                self._sources[number].example(draft, image[row]).text
                for draft, (row, number, *_) in zip(drafts, told, strict=True)
            ]
            try:
                text[own] = self._vocabulary.encode(said, length, self._config.data.long_text)
            except CocaError as error:
                raise DataError(str(error)) from error

        count = max(1, min(_GROUP, -(-len(source) // (2 * self._threads))))
        groups = [range(first, min(first + count, len(source))) for first in range(0, len(source), count)]
        made = {"image": image, "text": text, "source": source.copy()}
        return _Pending(made, [pool.submit(make, group) for group in groups])


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A batch in the making."""

    batch: Batch
    parts: list[Future]

    def result(self) -> Batch:
        for part in self.parts:
            part.result()
        return self.batch


class Batches(Iterator[Batch]):
    """The batches from a step on; the next ones are made in the background until this is closed or forgotten."""

    def __init__(self, begin, start_step: int, prefetch: int, pool: ThreadPoolExecutor):
        self._begin, self._step, self._prefetch = begin, start_step, prefetch
        self._pending: collections.deque[_Pending] = collections.deque()
        self.close = weakref.finalize(self, pool.shutdown, wait=False, cancel_futures=True)

    def __next__(self) -> Batch:
        while len(self._pending) <= self._prefetch:
            self._pending.append(self._begin(self._step))
            self._step += 1
        made = self._pending[0].result()  # an interrupted wait loses nothing
        self._pending.popleft()
        return made
