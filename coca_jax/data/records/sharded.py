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
from collections.abc import Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_files, shard_index
from coca_jax.data.records.record import BadRecord, Census, Record, RecordText, joined
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError, DataError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_MEMORY = 256 * 1024 * 1024  # bytes of indices kept in memory
_PARALLEL = 16  # shards indexed at a time
_MANY = 64  # shards from which on their counts are cached
_LARGE = 1_000  # records of a shard from which on its selection by metadata is cached
_PROBES = 100  # records whose fields are checked when a store is opened
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard in use: where its records lie, and which rows of the index belong to the store (uint32)."""

    index: Index
    rows: np.ndarray

    @property
    def size(self) -> int:  # approximate bytes of memory
        return self.index.size + self.rows.nbytes


class ShardedRecords:
    """Base of the stores of shards; see `RecordStore`. A subclass indexes a shard and reads rows of the index."""

    version = "2"  # of the contents of indices and counts; raise it where the same files would give other records
    not_metadata: tuple[str, ...] = ()  # fields of rows that are no metadata
    class_names: tuple[str, ...] | None = None

    def __init__(self, files: Sequence[File], dataset: DatasetConfig, selection: Selection):
        """Counts the records of each shard, indexing those without an index; CocaError if one is not of the format."""
        fields.check_templates(dataset)
        self._files, self._dataset, self._selection = list(files), dataset, selection
        self._shards: collections.OrderedDict[int, Shard] = collections.OrderedDict()
        self._held, self._lock = 0, threading.Lock()
        name = storage.digest(
            self.version,
            self._kind(),
            self._chosen(),
            str(bool(dataset.label_field)),
            *(f"{file.path}:{file.size}:{file.version}" for file in self._files),
        )
        counts, arrays = shard_index.cached(f"counts/{name}", self._counted, len(self._files) >= _MANY)
        self.census, self._counts = Census(**counts["census"]), arrays["records"]
        self._ends = np.cumsum(self._counts)
        self.fingerprint = storage.digest(
            *(f"{file.name}:{file.size}" for file in self._files), counts["digest"], self._chosen(), str(len(self))
        )

    # Defined by subclasses.

    def _index(self, number: int) -> Index:
        """The index of a shard; raises CocaError if the file is not of the format."""
        raise NotImplementedError

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray, str]:
        """bool [records], which of them can be used at all, and the cause by which the others count, if any."""
        del number
        return np.ones(len(index), bool), ""

    def _read(self, number: int, index: Index, rows: Sequence[int], images: bool) -> list[Any]:
        """The image and the other fields of each record; a BadRecord in place of each that cannot be read.

        The image is encoded, or a BadRecord; None if there is none, or it need not be read.
        """
        raise NotImplementedError

    # The store.

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        result: list[Record | BadRecord] = []
        for key, one in self._by_shard(indices, images=True):
            if not isinstance(one, BadRecord):
                image, row = one
                one = joined(key, BadRecord("record without image") if image is None else image, self._text(row))
            result.append(one)
        return result

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        found = self._by_shard(indices, images=False)
        return [one if isinstance(one, BadRecord) else self._text(one[1]) for _, one in found]

    def key(self, index: int) -> str:
        number, place = self._locate(index)
        shard = self._open(number)
        return self._key(number, shard.index, int(shard.rows[place]))

    def name(self, index: int) -> str:
        number, place = self._locate(index)
        path = self._files[number].path
        try:
            shard = self._open(number)
        except CocaError:
            return f"{path}:{place}"
        return f"{path}:{self._label(shard.index, int(shard.rows[place]))}"

    def _text(self, row: Any) -> RecordText | BadRecord:
        try:
            return RecordText(fields.captions(row, self._dataset), fields.metadata(row, self.not_metadata))
        except BadRecord as error:
            return error

    def _by_shard(self, indices: Sequence[int], images: bool) -> list[tuple[str, Any]]:
        """Keys, and what `_read` gives, of records of several shards, in the order of `indices`."""
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
                bad = shard_files.lost(self._files[number], "shard changed")
                found: list[tuple[str, Any]] = [("", bad)] * len(places)
            else:
                rows = [int(shard.rows[place]) for _, place in places]
                keys = [self._key(number, shard.index, row) for row in rows]
                found = list(zip(keys, self._read(number, shard.index, rows, images), strict=True))
            for (position, _), one in zip(places, found, strict=True):
                result[position] = one
        return result

    def _key(self, number: int, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else f"{self._files[number].name}:{row}"

    def _label(self, index: Index, row: int) -> str:
        return index.keys[row] if index.keys is not None else str(row)

    def _locate(self, index: int) -> tuple[int, int]:
        """The shard of a record, and the record's place among the shard's."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, int(index) - (int(self._ends[number - 1]) if number else 0)

    def _check_fields(self, images: bool = False) -> None:
        """Raises CocaError if the first records lack a configured field, or images if they should have any."""
        if not len(self):
            return
        number, _ = self._locate(0)
        check, found, problem = fields.FieldCheck(self._dataset), list[Any](), ""
        # One is mostly enough, and examples bring their images along.
        for some in (range(1), range(1, min(int(self._counts[number]), _PROBES))):
            found += [one for _, one in self._by_shard(some, images) if not isinstance(one, BadRecord)]
            where = f"{self._files[number].path} (the first {len(found)} records)"
            for _, row in found:
                problem = check.add(row).problem(where)
            if found and images and all(image is None for image, _ in found):
                problem = fields.without_image(where, found[0][1], self._dataset)
            if found and not problem:
                return
        if found:
            raise CocaError(problem)

    # Shards in use.

    def _open(self, number: int) -> Shard:
        with self._lock:
            if number in self._shards:
                self._shards.move_to_end(number)
                return self._shards[number]
        shard, _ = self._opened(number)
        if len(shard.rows) != self._counts[number]:
            raise CocaError(f"{self._files[number].path} was changed after it was indexed: start again")
        with self._lock:
            if number not in self._shards:
                self._shards[number] = shard
                self._held += shard.size
            while self._held > _MEMORY and len(self._shards) > 1:
                self._held -= self._shards.popitem(last=False)[1].size
        return shard

    def _opened(self, number: int) -> tuple[Shard, Census]:
        """A shard, and its part of the store's census."""
        index = self._index(number)
        usable, cause = self._usable(number, index)
        damage, names = Counter(index.damage), dict(index.names)
        if cause:
            damage[cause] += int((~usable).sum())
            names[cause] = self._label(index, int(np.argmin(usable)))
        chosen, held_out = self._selection.choose(
            keys=lambda: index.keys or Strings.of(self._key(number, index, row) for row in range(len(index))),
            met=lambda: self._met(number, index),
            usable=usable,
        )
        shard = Shard(index, np.flatnonzero(chosen).astype(np.uint32))
        return shard, Census(int(usable.sum()), held_out, damage, names)

    def _met(self, number: int, index: Index) -> np.ndarray:
        """bool [3, records]: which of them meet the selection's conditions; cached, as all metadata is read for it."""

        def metadata(some: range) -> list[dict[str, Any]]:
            found = self._read(number, index, some, images=False)
            return [{} if isinstance(one, BadRecord) else fields.metadata(one[1]) for one in found]

        def make() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            return {}, {"met": self._selection.met(len(index), metadata)}

        file, conditions = self._files[number], repr(self._selection.conditions)
        name = storage.digest(file.path, file.version, str(file.size), self.version, self._kind(), conditions)
        return shard_index.cached(f"selections/{name}", make, len(index) >= _LARGE)[1]["met"]

    # Counts of all shards.

    def _kind(self) -> str:
        """Whatever else decides which records a shard has."""
        return f"{type(self).__name__} {self._dataset.image_field}"

    def _chosen(self) -> str:
        """The selection as text; empty if all records are taken."""
        return "" if self._selection.is_everything else repr(self._selection)

    def _counted(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The census of all shards, a digest of their indices, and how many records of each belong to the store."""

        def survey(number: int) -> tuple[int, Census, str]:
            shard, census = self._opened(number)
            return len(shard.rows), census, shard.index.digest

        records, digests = np.zeros(len(self._files), np.int64), hashlib.sha256()
        damage, names = Counter[str](), dict[str, str]()
        total, held_out = 0, 0 if self._selection.part else None
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            for number, (count, census, digest) in enumerate(pool.map(survey, range(len(self._files)))):
                records[number] = count
                damage.update(census.damage)
                for cause in census.damage.keys() - names.keys():
                    path, inner = self._files[number].path, census.names.get(cause)
                    names[cause] = f"{path}:{inner}" if inner else path
                total += census.total
                held_out = None if held_out is None else held_out + (census.held_out or 0)
                digests.update(digest.encode() + b"\n")
                if number % 1_000 == 999:
                    _log.info("%d of %d shards are indexed", number + 1, len(self._files))
        census = Census(total, held_out, damage, names)
        return {"census": vars(census), "digest": digests.hexdigest()}, {"records": records}
