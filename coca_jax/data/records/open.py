"""Records reached by index: what a store is, and the store that a config names."""

import dataclasses
import fnmatch
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.images.decode import BadRecord
from coca_jax.data.records.fields import clean_captions as clean_captions
from coca_jax.errors import CocaError
from coca_jax.storage import reading as storage
from coca_jax.storage.files import is_remote
from coca_jax.storage.reading import digest as digest

if TYPE_CHECKING:
    from coca_jax.data.records.shard_index import Strings

SPLITS = ("train", "evaluation")
_TOGETHER = 64  # records that are read together; one of a TFRecord or ArrayRecord holds its picture too


@dataclasses.dataclass(frozen=True)
class Record:
    """One pair.

    Attributes:
      key: its name within the store.
      image: the encoded picture or clip.
      captions: none of them empty; at least one, unless the set's text is made from labels.
      metadata: what else is known of it.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Said:
    """A record without its picture."""

    captions: tuple[str, ...]
    metadata: Mapping[str, Any]


class Store(Protocol):
    """Records by index, in an order that never changes. Several threads may read it.

    Attributes:
      damage: losses found while indexing, counted by cause.
      fingerprint: hex digits that change where the records do, and do not depend on where they lie.
      class_names: names of the classes in the order of their numbers, where the store itself knows them (TFDS).
    """

    damage: Mapping[str, int]
    fingerprint: str
    class_names: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """The record; raises BadRecord where it cannot be used."""

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        """The records, neighbours in one read; a BadRecord instance where one cannot be used."""

    def captions(self, index: int) -> tuple[str, ...]:
        """The record's captions alone, without its picture; raises BadRecord where it has none."""

    def metadata(self, index: int) -> Mapping[str, Any]:
        """The record's metadata alone; empty where it has none that can be read."""

    def said(self, indices: Sequence[int]) -> list[Said | BadRecord]:
        """What the records say without their pictures, neighbours in one read; a BadRecord instance for a bad one."""

    def key(self, index: int) -> str:
        """What `Record.key` will be, without reading the record."""

    def name(self, index: int) -> str:
        """Where a person finds the record."""


class ReadTogether:
    """A store whose single records are read as several are."""

    def __getitem__(self, index: int) -> Record:
        record = self.read([index])[0]
        if isinstance(record, BadRecord):
            raise record
        return record


class Subset:
    """Some records of a store, in its order."""

    def __init__(self, store: Store, indices: np.ndarray):
        self._store, self._indices = store, indices
        self.damage, self.class_names = store.damage, store.class_names
        self.fingerprint = digest(store.fingerprint, hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest())

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._store[int(self._indices[index])]

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        return self._store.read(self._indices[np.asarray(indices, np.int64)].tolist())

    def captions(self, index: int) -> tuple[str, ...]:
        return self._store.captions(int(self._indices[index]))

    def metadata(self, index: int) -> Mapping[str, Any]:
        return self._store.metadata(int(self._indices[index]))

    def said(self, indices: Sequence[int]) -> list[Said | BadRecord]:
        return self._store.said(self._indices[np.asarray(indices, np.int64)].tolist())

    def key(self, index: int) -> str:
        return self._store.key(int(self._indices[index]))

    def name(self, index: int) -> str:
        return self._store.name(int(self._indices[index]))


@dataclasses.dataclass(frozen=True)
class KeyList:
    """Keys of records to leave out: millions of them, so only their hashes are kept.

    Attributes:
      digest: of the keys; part of a set's fingerprint.
      hashes: uint64 [n], sorted.
    """

    digest: str
    hashes: np.ndarray = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_file(cls, path: str) -> "KeyList":
        """The keys of a text file, one a line.

        Raises:
          CocaError: it cannot be read.
        """
        from coca_jax.data.records.shard_index import Strings

        try:
            lines = storage.read(path).decode("utf-8", "surrogateescape").split("\n")
        except BadRecord as error:
            raise CocaError(
                f"the keys {path} cannot be read ({error}): check exclude_keys, a file with one key a "
                "line, or write it with python -m coca_jax.tools dedup"
            ) from error
        keys = sorted({line.removesuffix("\r") for line in lines} - {""})
        return cls(digest(*keys), np.unique(Strings.of(keys).hashes()))

    def have(self, keys: "Strings") -> np.ndarray:
        """bool [n]: which of the keys are in the list."""
        return np.isin(keys.hashes(), self.hashes)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which records of a set belong to a split.

    Attributes:
      part: "train" or "evaluation": only this side of the held-out share. "": both.
      holdout: the share.
      exclude: records whose metadata has one of these "field=value" are left out.
      only: unless empty, so are those that have none of these.
      exclude_keys: records with one of these keys are left out.
    """

    part: str = ""
    holdout: float = 0.0
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    exclude_keys: "KeyList | None" = None

    @property
    def is_everything(self) -> bool:
        return not self.part and not self.exclude and not self.only and not self.exclude_keys

    def excludes(self, metadata: Mapping[str, Any]) -> bool:
        def has_one(conditions: tuple[str, ...]) -> bool:
            pairs = (condition.partition("=") for condition in conditions)
            return any(field in metadata and str(metadata[field]) == value for field, _, value in pairs)

        return has_one(self.exclude) or (bool(self.only) and not has_one(self.only))


def open_store(source: DatasetConfig, split: str) -> Store:
    """The records of one split of `source.path`.

    Where `evaluation_files` are named, they are the held-out records and never train; elsewhere a share `holdout`
    is held out, chosen by a hash of each record's key, so that adding records moves none to the other split.

    Raises:
      CocaError: the folder or its files are missing, pictures have no captions, or nothing is left after the choice.
    """
    for key, conditions in (("exclude", source.exclude), ("only", source.only)):
        wrong = [condition for condition in conditions if not condition.partition("=")[0] or "=" not in condition]
        if wrong:
            raise CocaError(f"data.dataset.{key} has {wrong[0]!r}: write it as field=value, such as split=test")
    training = split == SPLITS[0]
    if not training and not source.holds_out:
        raise CocaError(
            f"data.dataset.holdout is 0, so that all records of {source.path} train and none is left to evaluate: "
            "set data.dataset.holdout, such as 0.01, or name some files in data.dataset.evaluation_files"
        )
    named = bool(source.evaluation_files)
    patterns = source.train_files if training or not named else source.evaluation_files
    without = source.evaluation_files if training else ()
    exclude = source.exclude if training else ()
    keys = KeyList.from_file(source.exclude_keys) if training and source.exclude_keys else None
    selection = Selection("" if named else split, 0.0 if named else source.holdout, exclude, source.only, keys)
    store = _open(source, patterns, without, selection)
    if not len(store):
        raise CocaError(
            f"none of the {store.total} records of {source.path} is left for {split}: change data.dataset.holdout, "
            "data.dataset.exclude or data.dataset.evaluation_files"
        )
    return store


def each_said(store: Store, indices: Sequence[int]) -> Iterator[tuple[int, Said | BadRecord]]:
    """What each record says: read once, with its neighbours."""
    for start in range(0, len(indices), _TOGETHER):
        some = indices[start : start + _TOGETHER]
        yield from zip(some, store.said(some), strict=True)


def check_place(source: DatasetConfig, split: str, labels: Sequence[str]) -> None:
    """Says early, before any record is read, what is wrong with the place of a set's records.

    Args:
      source, split: as for `open_store`.
      labels: names of metadata that the records must have; only a TFDS set says beforehand which it has.

    Raises:
      CocaError: there is nothing at a path of a disk; or a TFDS set, its split or its features are missing.
    """
    if source.format == "tfds":
        from coca_jax.data.records.formats import tfds as tfds_records

        tfds_records.check(source, source.train_files if split == SPLITS[0] else source.evaluation_files, labels)
    elif not is_remote(source.path) and not os.path.exists(source.path):
        raise CocaError(f"{source.path} does not exist: set --config.data.dataset.path to where the records lie")


def _open(source: DatasetConfig, patterns: Sequence[str], without: Sequence[str], selection: Selection) -> Any:
    # Imported here: each of them imports this file, and tensorflow only where it is needed.
    match source.format:
        case "tars":
            from coca_jax.data.records.formats.tar import TarRecords

            return TarRecords(source, patterns, without, selection)
        case "folder":
            from coca_jax.data.records.formats.folder import open_folder

            return open_folder(source, patterns, without, selection)
        case "tfrecords" | "array_records":
            from coca_jax.data.records.formats.tf_example import ExampleRecords

            return ExampleRecords(source, patterns, without, selection)
        case "tfds":
            from coca_jax.data.records.formats.tfds import TfdsRecords

            return TfdsRecords(source, patterns, without, selection)
    raise CocaError(f"data.dataset.format is {source.format!r}, which has no records")


def held_out(keys: "Strings", share: float) -> np.ndarray:
    """bool [n]: which keys belong to the held-out share, by their hash alone."""
    return keys.hashes() < np.uint64(min(int(share * 2**64), 2**64 - 1))


def is_selected(name: str, patterns: Sequence[str], without: Sequence[str]) -> bool:
    """Whether a file's name matches one of `patterns` and none of `without`."""
    return any(fnmatch.fnmatchcase(name, one) for one in patterns) and not any(
        fnmatch.fnmatchcase(name, one) for one in without
    )
