"""Records reached by index: what a store is, and the store that a config names."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from coca_jax.config import DataConfig
from coca_jax.data.images import BadRecord
from coca_jax.errors import CocaError

SPLITS = ("train", "evaluation")


@dataclasses.dataclass(frozen=True)
class Record:
    """One pair.

    Attributes:
      key: its name within the store.
      image: the encoded picture.
      captions: at least one, none of them empty.
      metadata: what else is known of it.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    metadata: Mapping[str, Any]


class Store(Protocol):
    """Records by index, in an order that never changes.

    Attributes:
      damage: losses found while indexing, counted by cause.
      fingerprint: hex digits that change where the records do.
    """

    damage: Mapping[str, int]
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """The record; raises BadRecord where it cannot be used."""

    def captions(self, index: int) -> tuple[str, ...]:
        """The record's captions alone, without reading its picture; raises BadRecord where it has none."""

    def metadata(self, index: int) -> Mapping[str, Any]:
        """The record's metadata alone; empty where it has none that can be read."""

    def key(self, index: int) -> str:
        """What `Record.key` will be, without reading the record."""

    def name(self, index: int) -> str:
        """Where a person finds the record."""


class Subset:
    """Some records of a store, in its order."""

    def __init__(self, store: Store, indices: np.ndarray):
        self._store, self._indices = store, indices
        self.damage = store.damage
        self.fingerprint = digest(store.fingerprint, indices.astype("<i8").tobytes().hex())

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        return self._store[int(self._indices[index])]

    def captions(self, index: int) -> tuple[str, ...]:
        return self._store.captions(int(self._indices[index]))

    def metadata(self, index: int) -> Mapping[str, Any]:
        return self._store.metadata(int(self._indices[index]))

    def key(self, index: int) -> str:
        return self._store.key(int(self._indices[index]))

    def name(self, index: int) -> str:
        return self._store.name(int(self._indices[index]))


def open_store(config: DataConfig, split: str) -> Store:
    """The records of one split of `config.path`.

    Where `evaluation_files` are named, they are the held-out records and never train; elsewhere a share `holdout`
    is held out, chosen by a hash of each record's key, so that adding records moves none to the other split.

    Raises:
      CocaError: the folder or its tars are missing, pictures have no captions, or nothing is left after the choice.
    """
    from coca_jax.data.folder_records import FolderRecords
    from coca_jax.data.tar_records import TarRecords

    training = split == SPLITS[0]
    if config.task == "tars" and config.evaluation_files:
        if training:
            store = TarRecords(config.path, config.train_files, without=config.evaluation_files)
        else:
            store = TarRecords(config.path, config.evaluation_files)
        keep = np.ones(len(store), bool)
    else:
        store = TarRecords(config.path, config.train_files) if config.task == "tars" else FolderRecords(config.path)
        held_out = np.array([_held_out(store.key(i), config.holdout) for i in range(len(store))], bool)
        keep = ~held_out if training else held_out
    if training and config.exclude:
        keep &= ~_matching(store, config.exclude)
    if not keep.any():
        raise CocaError(f"none of the {len(store)} records of {config.path} is left for {split}: change data.holdout, "
                        "data.exclude or data.evaluation_files")
    return store if keep.all() else Subset(store, np.flatnonzero(keep))


def _held_out(key: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


def _matching(store: Store, conditions: Sequence[str]) -> np.ndarray:
    """Which records have one of the conditions "field=value" in their metadata."""
    pairs = [condition.partition("=") for condition in conditions]
    wrong = [condition for condition, (field, sign, _) in zip(conditions, pairs) if not field or not sign]
    if wrong:
        raise CocaError(f"data.exclude has {wrong[0]!r}: write it as field=value, such as split=test")
    found = np.zeros(len(store), bool)
    for i in range(len(store)):
        metadata = store.metadata(i)
        found[i] = any(field in metadata and str(metadata[field]) == value for field, _, value in pairs)
    return found


def clean_captions(texts: Any) -> tuple[str, ...]:
    """The texts with their spaces normalised, empty ones left out; one string counts as a list of one.

    Raises:
      BadRecord: no text is left.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        texts = ()
    captions = tuple(" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip())
    if not captions:
        raise BadRecord("empty caption")
    return captions


def captions_in(metadata: Mapping[str, Any]) -> Any:
    """What a metadata row says under "captions", "caption" or "text"; None where it has none of them."""
    return next((metadata[key] for key in ("captions", "caption", "text") if key in metadata), None)


def parse_object(text: bytes | str) -> dict[str, Any] | None:
    """The JSON object that the text is; None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # bad UTF-8 is a ValueError, too
        return None
    return value if isinstance(value, dict) else None


def digest(*parts: str) -> str:
    """16 hex digits that depend on every part."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
