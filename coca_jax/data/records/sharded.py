"""Records of many shard files by index: of each shard only its count is held; where its records lie is read on demand.

A hundred thousand shards of ten thousand records open without their keys in memory: counts of large sets are kept in
the cache folder, and the indices of the shards in use in a cache of bounded size.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.images.decode import BadRecord
from coca_jax.data.records import fields
from coca_jax.data.records import index_cache as shard_sets
from coca_jax.data.records.open import ReadTogether, Record, Said, Selection, held_out
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError, DataError
from coca_jax.storage import reading as storage
from coca_jax.storage.reading import File

_MEMORY = 256 * 1024 * 1024  # bytes of indices kept in memory
_PARALLEL = 16  # shards indexed at a time
_MANY = 64  # shards from which on their counts are kept in a file
_WORTH_KEEPING = 1_000  # records of a shard whose selection by metadata is kept
_AT_ONCE = 1_000  # records whose metadata is read at a time: examples bring their pictures along
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A shard in use: its index, and which of its records belong to the store (uint32; None: all)."""

    index: Index
    rows: np.ndarray | None

    def __len__(self) -> int:
        return len(self.index) if self.rows is None else len(self.rows)

    def row(self, place: int) -> int:
        return place if self.rows is None else int(self.rows[place])


class Shards(ReadTogether):
    """What stores of shards have in common. A subclass says how a shard is indexed and how its rows become records.

    Attributes: see `records.Store`.
    """

    version = "1"  # of what indices and counts hold; raise it where the same files would give other records
    class_names: tuple[str, ...] | None = None

    def __init__(self, files: Sequence[File], source: DatasetConfig, selection: Selection):
        """Counts the records of each shard, indexing those that have no index yet.

        Raises:
          CocaError: a file is no shard, or nothing is left of the records.
        """
        fields.check_templates(source)
        self._files, self._source, self._selection = list(files), source, selection
        self._shards: collections.OrderedDict[int, Opened] = collections.OrderedDict()
        self._held, self._lock = 0, threading.Lock()
        counts = self._counted()
        self.damage, self.total = counts.damage, counts.total
        self._ends = np.cumsum(counts.records)
        chosen = self._chosen()
        self.fingerprint = storage.digest(
            *(f"{file.name}:{file.size}" for file in self._files), counts.digest, chosen, str(len(self))
        )

    # What a subclass says.

    def _index(self, number: int) -> Index:
        """The index of a shard; raises CocaError where the file is none."""
        raise NotImplementedError

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray | None, Mapping[str, int]]:
        """Which records can be used at all (None: all of them), and those that cannot, counted by cause."""
        return None, {}

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        """What is said of the records without their pictures, for `fields`; a BadRecord where it cannot be read."""
        raise NotImplementedError

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        raise NotImplementedError

    # The store.

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        """The records, neighbours of a shard in one read; a BadRecord instance where one cannot be used."""
        return self._each(indices, self._read_records)

    def said(self, indices: Sequence[int]) -> list[Said | BadRecord]:
        """What the records say, neighbours of a shard in one read; a BadRecord instance where it cannot be used."""
        return [self._saying(row) for row in self._each(indices, self._read_rows)]

    def _saying(self, row: Any) -> Said | BadRecord:
        try:
            return row if isinstance(row, BadRecord) else Said(fields.captions(row, self._source), self._metadata(row))
        except BadRecord as error:
            return error

    def _each(self, indices: Sequence[int], read: Callable[[int, Index, Sequence[int]], list[Any]]) -> list[Any]:
        """What `read` gives of a shard's rows, for records of several shards."""
        result: list[Any] = [None] * len(indices)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            number, inner = self._locate(index)
            wanted.setdefault(number, []).append((place, inner))
        for number, places in wanted.items():
            try:
                opened = self._open(number)
                rows = [opened.row(inner) for _, inner in places]
                found = read(number, opened.index, rows)
            except DataError:  # the bucket is lost, not a shard of it
                raise
            except (CocaError, IndexError):  # it was sound when the store was opened
                found = [self._gone(number)] * len(places)
            for (place, _), record in zip(places, found, strict=True):
                result[place] = record
        return result

    def captions(self, index: int) -> tuple[str, ...]:
        return fields.captions(self._row(index), self._source)

    def metadata(self, index: int) -> Mapping[str, Any]:
        try:
            return self._metadata(self._row(index))
        except BadRecord:
            return {}

    def _metadata(self, row: Any) -> dict[str, Any]:
        return fields.metadata(row, self._no_metadata())

    def key(self, index: int) -> str:
        number, inner = self._locate(index)
        opened = self._open(number)
        return self._key(number, opened.index, opened.row(inner))

    def name(self, index: int) -> str:
        number, inner = self._locate(index)
        path = self._files[number].path
        try:
            opened = self._open(number)
            return f"{path}:{self._label(opened.index, opened.row(inner))}"
        except (CocaError, IndexError):
            return f"{path}:{inner}"

    def _no_metadata(self) -> Sequence[str]:
        """Fields that metadata leaves out."""
        return ()

    def _row(self, index: int) -> Any:
        number, inner = self._locate(index)
        try:
            opened = self._open(number)
            row = self._read_rows(number, opened.index, [opened.row(inner)])[0]
        except DataError:
            raise
        except (CocaError, IndexError) as error:
            raise self._gone(number) from error
        if isinstance(row, BadRecord):
            raise row
        return row

    def _key(self, number: int, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else f"{self._files[number].name}:{row}"

    def _label(self, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else str(row)

    def _gone(self, number: int) -> BadRecord:
        return BadRecord("shard changed" if storage.stat(self._files[number].path) else "missing file")

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, int(index) - (int(self._ends[number - 1]) if number else 0)

    # Shards in use.

    def _open(self, number: int) -> Opened:
        with self._lock:
            if number in self._shards:
                self._shards.move_to_end(number)
                return self._shards[number]
        opened, _, _ = self._opened(number)
        with self._lock:
            if number not in self._shards:
                self._shards[number] = opened
                self._held += opened.index.size
            while self._held > _MEMORY and len(self._shards) > 1:
                self._held -= self._shards.popitem(last=False)[1].index.size
        return opened

    def _opened(self, number: int) -> tuple[Opened, Counter[str], int]:
        """The shard, its losses by cause, and how many records it has before any are selected."""
        index = self._index(number)
        usable, lost = self._usable(number, index)
        damage = Counter(index.damage) + Counter(lost)
        total = len(index) if usable is None else int(usable.sum())
        if usable is None and self._selection.is_everything:
            return Opened(index, None), damage, total
        keep = np.ones(len(index), bool) if usable is None else usable.copy()
        if self._selection.part or self._selection.exclude_keys:
            keys = index.keys or Strings.of(self._key(number, index, row) for row in range(len(index)))
            if self._selection.part:
                held = held_out(keys, self._selection.holdout)
                keep &= held if self._selection.part == "evaluation" else ~held
            if self._selection.exclude_keys:
                keep &= ~self._selection.exclude_keys.have(keys)
        if self._selection.exclude or self._selection.only:
            keep &= ~self._matching(number, index)
        return Opened(index, np.flatnonzero(keep).astype(np.uint32)), damage, total

    def _matching(self, number: int, index: Index) -> np.ndarray:
        """Which records the selection excludes by their metadata; kept, because all of it is read for that."""
        file, conditions = self._files[number], repr((self._selection.exclude, self._selection.only))
        name = storage.digest(file.path, file.version, str(file.size), self.version, self._kind(), conditions)
        kept = shard_sets.kept_choice(name, len(index))
        if kept is not None:
            return kept
        found = np.zeros(len(index), bool)
        for start in range(0, len(index), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(index)))
            for place, row in zip(some, self._read_rows(number, index, some), strict=True):
                found[place] = self._selection.excludes({} if isinstance(row, BadRecord) else fields.metadata(row))
        if len(index) >= _WORTH_KEEPING:
            shard_sets.keep_choice(name, found)
        return found

    # Counts of all shards.

    def _kind(self) -> str:
        """What else decides which records a shard has."""
        return f"{type(self).__name__} {self._source.image_field}"

    def _chosen(self) -> str:
        """What selects the records, as text; empty where all are taken."""
        return "" if self._selection.is_everything else repr(self._selection)

    def _counted(self) -> shard_sets.Counts:
        many = len(self._files) >= _MANY
        name = storage.digest(
            self.version,
            self._kind(),
            self._chosen(),
            str(bool(self._source.label_field)),
            *(f"{file.path}:{file.size}:{file.version}" for file in self._files),
        )
        kept = shard_sets.kept_counts(name, len(self._files)) if many else None
        if kept is not None:
            return kept
        records, damage, total, digests = np.zeros(len(self._files), np.int64), Counter(), 0, hashlib.sha256()
        for number, (count, lost, of_shard, digest) in enumerate(self._survey()):
            records[number] = count
            damage.update(lost)
            total += of_shard
            digests.update(digest.encode() + b"\n")
        counts = shard_sets.Counts(records, damage, total, digests.hexdigest())
        if many:
            shard_sets.keep_counts(name, counts)
        return counts

    def _survey(self) -> Iterator[tuple[int, Counter[str], int, str]]:
        def one(number: int) -> tuple[int, Counter[str], int, str]:
            opened, damage, total = self._opened(number)
            return len(opened), damage, total, opened.index.digest

        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            try:
                for number, answer in enumerate(pool.map(one, range(len(self._files))), 1):
                    if number % 1_000 == 0:
                        _log.info("%d of %d shards are indexed", number, len(self._files))
                    yield answer
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
