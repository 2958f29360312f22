"""Records of many shard files by index: only each shard's count is held; where its records lie is read on demand.

A hundred thousand shards of ten thousand records open without their keys in memory: the counts of large datasets are
kept in the cache folder, and the indices of the shards in use in a cache of bounded size.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, index_cache
from coca_jax.data.records.record import BadRecord, Census, Record, RecordText
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError, DataError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_MEMORY = 256 * 1024 * 1024  # bytes of indices kept in memory
_PARALLEL = 16  # shards indexed at a time
_MANY = 64  # shards from which on their counts are cached
_LARGE = 1_000  # records of a shard from which on its selection by metadata is cached
_AT_ONCE = 1_000  # records whose metadata is read at a time: examples bring their images along
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard in use.

    Attributes:
      index: where its records lie.
      rows: uint32, which of them belong to the store; None: all.
      census: its part of the store's.
    """

    index: Index
    rows: np.ndarray | None
    census: Census

    def __len__(self) -> int:
        return len(self.index) if self.rows is None else len(self.rows)

    @property
    def size(self) -> int:
        """Approximate bytes of memory."""
        return self.index.size + (0 if self.rows is None else self.rows.nbytes)

    def row(self, place: int) -> int:
        """The row in the index of the store's record at a place in this shard."""
        return place if self.rows is None else int(self.rows[place])


class ShardedRecords:
    """Base of the stores of shards; see `RecordStore`. A subclass indexes a shard and turns its rows into records."""

    version = "1"  # of the contents of indices and counts; raise it where the same files would give other records
    class_names: tuple[str, ...] | None = None

    def __init__(self, files: Sequence[File], dataset: DatasetConfig, selection: Selection):
        """Counts the records of each shard, indexing those that have no index yet.

        Raises:
          CocaError: a file is no shard of the format.
        """
        fields.check_templates(dataset)
        self._files, self._dataset, self._selection = list(files), dataset, selection
        self._shards: collections.OrderedDict[int, Shard] = collections.OrderedDict()
        self._held, self._lock = 0, threading.Lock()
        counts = self._counted()
        self.census, self._counts, self._ends = counts.census, counts.records, np.cumsum(counts.records)
        self.fingerprint = storage.digest(
            *(f"{file.name}:{file.size}" for file in self._files), counts.digest, self._chosen(), str(len(self))
        )

    # Defined by subclasses.

    def _index(self, number: int) -> Index:
        """The index of a shard; raises CocaError if the file is not of the format."""
        raise NotImplementedError

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray | None, str]:
        """bool [records], which of them can be used at all (None: all), and the cause by which the others count, if any."""
        del number, index
        return None, ""

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        """The fields of the records, without their images; a BadRecord in place of each that cannot be read."""
        raise NotImplementedError

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        raise NotImplementedError

    # The store.

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        return self._by_shard(indices, self._read_records)

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        return [self._text(row) for row in self._by_shard(indices, self._read_rows)]

    def key(self, index: int) -> str:
        number, place = self._locate(index)
        shard = self._open(number)
        return self._key(number, shard.index, shard.row(place))

    def name(self, index: int) -> str:
        number, place = self._locate(index)
        try:
            shard = self._open(number)
        except CocaError:
            return f"{self._files[number].path}:{place}"
        return f"{self._files[number].path}:{self._label(shard.index, shard.row(place))}"

    def _text(self, row: Any) -> RecordText | BadRecord:
        if isinstance(row, BadRecord):
            return row
        try:
            return RecordText(fields.captions(row, self._dataset), self._metadata(row))
        except BadRecord as error:
            return error

    def _metadata(self, row: Any) -> dict[str, Any]:
        return fields.metadata(row)

    def _by_shard(self, indices: Sequence[int], read: Callable[[int, Index, Sequence[int]], list[Any]]) -> list[Any]:
        """`read` of each shard's rows, for records of several shards, in the order of `indices`."""
        result: list[Any] = [None] * len(indices)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for position, index in enumerate(indices):
            number, place = self._locate(index)
            wanted.setdefault(number, []).append((position, place))
        for number, places in wanted.items():
            try:
                shard = self._open(number)
            except DataError:  # the whole bucket is lost
                raise
            except CocaError:  # the shard was sound when the store was opened
                cause = "shard changed" if storage.stat(self._files[number].path) else "missing file"
                records: list[Any] = [BadRecord(cause)] * len(places)
            else:
                records = read(number, shard.index, [shard.row(place) for _, place in places])
            for (position, _), record in zip(places, records, strict=True):
                result[position] = record
        return result

    def _key(self, number: int, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else f"{self._files[number].name}:{row}"

    def _label(self, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else str(row)

    def _locate(self, index: int) -> tuple[int, int]:
        """The shard of a record, and the record's place in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, int(index) - (int(self._ends[number - 1]) if number else 0)

    # Shards in use.

    def _open(self, number: int) -> Shard:
        with self._lock:
            if number in self._shards:
                self._shards.move_to_end(number)
                return self._shards[number]
        shard = self._opened(number)
        if len(shard) != self._counts[number]:
            raise CocaError(f"{self._files[number].path} was changed after it was indexed: start again")
        with self._lock:
            if number not in self._shards:
                self._shards[number] = shard
                self._held += shard.size
            while self._held > _MEMORY and len(self._shards) > 1:
                self._held -= self._shards.popitem(last=False)[1].size
        return shard

    def _opened(self, number: int) -> Shard:
        index = self._index(number)
        usable, cause = self._usable(number, index)
        damage, names = Counter(index.damage), dict(index.names)
        if usable is None and self._selection.is_everything:
            return Shard(index, None, Census(len(index), None, damage, names))
        usable = np.ones(len(index), bool) if usable is None else usable
        if cause:
            damage[cause] += int((~usable).sum())
            names[cause] = self._label(index, int(np.argmin(usable)))
        chosen, held_out = self._selection.choose(
            keys=lambda: index.keys or Strings.of(self._key(number, index, row) for row in range(len(index))),
            excluded=lambda: self._excluded(number, index),
            usable=usable,
        )
        census = Census(int(usable.sum()), held_out, damage, names)
        return Shard(index, np.flatnonzero(chosen).astype(np.uint32), census)

    def _excluded(self, number: int, index: Index) -> np.ndarray:
        """bool [records]: which of them the selection excludes by metadata; cached, as all metadata is read for it."""
        file, conditions = self._files[number], repr((self._selection.exclude, self._selection.only))
        name = storage.digest(file.path, file.version, str(file.size), self.version, self._kind(), conditions)
        cached = index_cache.cached_choice(name, len(index))
        if cached is not None:
            return cached
        excluded = np.zeros(len(index), bool)
        for start in range(0, len(index), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(index)))
            for place, row in zip(some, self._read_rows(number, index, some), strict=True):
                excluded[place] = self._selection.excludes({} if isinstance(row, BadRecord) else fields.metadata(row))
        if len(index) >= _LARGE:
            index_cache.cache_choice(name, excluded)
        return excluded

    # Counts of all shards.

    def _kind(self) -> str:
        """Whatever else decides which records a shard has."""
        return f"{type(self).__name__} {self._dataset.image_field}"

    def _chosen(self) -> str:
        """The selection as text; empty if all records are taken."""
        return "" if self._selection.is_everything else repr(self._selection)

    def _counted(self) -> index_cache.Counts:
        many = len(self._files) >= _MANY
        name = storage.digest(
            self.version,
            self._kind(),
            self._chosen(),
            str(bool(self._dataset.label_field)),
            *(f"{file.path}:{file.size}:{file.version}" for file in self._files),
        )
        cached = index_cache.cached_counts(name, len(self._files)) if many else None
        if cached is not None:
            return cached
        records, digests = np.zeros(len(self._files), np.int64), hashlib.sha256()
        damage, names = Counter[str](), dict[str, str]()
        total, held_out = 0, 0 if self._selection.part else None
        for number, (count, census, digest) in enumerate(self._survey()):
            records[number] = count
            damage.update(census.damage)
            for cause in census.damage.keys() - names.keys():
                path, inner = self._files[number].path, census.names.get(cause)
                names[cause] = f"{path}:{inner}" if inner else path
            total += census.total
            held_out = None if held_out is None else held_out + (census.held_out or 0)
            digests.update(digest.encode() + b"\n")
        counts = index_cache.Counts(records, Census(total, held_out, damage, names), digests.hexdigest())
        if many:
            index_cache.cache_counts(name, counts)
        return counts

    def _survey(self) -> Iterator[tuple[int, Census, str]]:
        """Each shard's count of the store's records, its census and its digest."""

        def one(number: int) -> tuple[int, Census, str]:
            shard = self._opened(number)
            return len(shard), shard.census, shard.index.digest

        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            try:
                for number, answer in enumerate(pool.map(one, range(len(self._files))), 1):
                    if number % 1_000 == 0:
                        _log.info("%d of %d shards are indexed", number, len(self._files))
                    yield answer
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
