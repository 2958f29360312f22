"""Indices of shards: made by one scan, kept beside the shard or in the cache folder, and checked before use."""

import array
import contextlib
import dataclasses
import io
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.errors import CocaError, DataError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, ReadError, is_remote

_FORMAT = "coca_jax shard index 4"  # raise the number if the contents change
_LARGEST = 2**36  # bytes of an index
_CHUNK = 100_000  # strings hashed at a time
_log = logging.getLogger(__name__)
_Contents = tuple[dict[str, Any], dict[str, np.ndarray]]  # of a cached file
# Errors of numpy on a file that is damaged or of another origin.
_ODD = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, MemoryError, RecursionError)
_DAMAGE = (*_ODD, zipfile.BadZipFile, zlib.error, ReadError)


@dataclasses.dataclass(frozen=True, eq=False)
class Strings:
    """Many strings as their UTF-8 (uint8 [bytes]) and the end of each in it (int64 [n]): a tenth of a list's memory."""

    data: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        buffer, ends = bytearray(), array.array("q")
        for text in texts:
            buffer += text.encode("utf-8", "surrogateescape")
            ends.append(len(buffer))
        return cls(np.frombuffer(bytes(buffer), np.uint8), np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def are_filled(self) -> np.ndarray:
        """bool [n]: which of them are not empty."""
        return np.diff(self.ends, prepend=0) > 0

    def hashes(self) -> np.ndarray:
        """uint64 [n]: of each string a polynomial of its bytes modulo 2^64, mixed by splitmix64's finaliser.

        The held-out share of every dataset is chosen by these: they must never change.
        """
        parts = []
        for first in range(0, len(self), _CHUNK):
            ends = self.ends[first : first + _CHUNK]
            origin = int(self.ends[first - 1]) if first else 0
            starts = np.concatenate([[origin], ends[:-1]])
            lengths = ends - starts
            data = self.data[origin : int(ends[-1])]
            place = np.arange(len(data)) - np.repeat(starts - origin, lengths)
            powers = np.cumprod(np.full(lengths.max(initial=0), _FACTOR), dtype=np.uint64)
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_TABLE[data] * powers[place], dtype=np.uint64)])
            parts.append(_mixed(sums[ends - origin] - sums[starts - origin] + lengths.astype(np.uint64)))
        return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_TABLE, _FACTOR = _mixed(np.arange(1, 257, dtype=np.uint64)), np.uint64(0x5851F42D4C957F2D)


@dataclasses.dataclass(frozen=True)
class Index:
    """The places of one shard's records.

    Attributes:
      spans: int64 [rows, columns]: pairs of offset and size, (-1, 0) for an absent member.
      keys: the records' names, if the shard holds any.
      ends: int64 [records], if several rows make a record: the row after its last one.
      damage: unusable records and broken parts, counted by cause.
      digest: changes with the shard's contents, as far as the scan sees them.
      names: the name of one of the damaged records by cause, where known.
    """

    spans: np.ndarray
    keys: Strings | None = None
    ends: np.ndarray | None = None
    damage: Mapping[str, int] = dataclasses.field(default_factory=dict)
    digest: str = ""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.spans) if self.ends is None else len(self.ends)

    @property
    def size(self) -> int:
        """Approximate bytes of memory."""
        return sum(one.nbytes for one in _arrays(self).values()) + 1_000


def _arrays(index: Index) -> dict[str, np.ndarray]:
    keys = {} if index.keys is None else {"keys": index.keys.data, "key_ends": index.keys.ends}
    return {"spans": index.spans, **keys, **({} if index.ends is None else {"ends": index.ends})}


def index_of(file: File, kind: str, scan: Callable[[File], Index], *, columns: int = 2, beside: bool = False) -> Index:
    """The index of a shard: a stored one that fits its size and version, or else a new one, which is stored.

    Args:
      kind: of the index, as several may be stored of one shard; "" for the usual one.
      scan: makes the index.
      columns: of its spans; a stored index with another number is discarded.
      beside: keep it beside the shard even in a bucket; otherwise it goes to the cache folder.

    Raises:
      CocaError: the shard has changed since it was listed, or `scan` raises it.
    """
    name = f"{kind}.index" if kind else "index"
    near = f"{file.path}.{name}"
    address = file.path if is_remote(file.path) else os.path.abspath(file.path)
    far = f"{storage.cache_folder()}/indices/{storage.digest(address)}.{name}"
    for path in (far, near) if is_remote(file.path) else (near, far):
        known = _load(path, file, kind, columns)
        if known is not None:
            if path == near and is_remote(near):
                _keep([far], _dump(known, file, kind))
            return known
    now = storage.stat(file.path)
    if now is None or now.size != file.size or (now.version != file.version and not is_remote(file.path)):
        raise CocaError(f"{file.path} was changed or removed after it was listed: start again when it is complete")
    index = scan(file)
    here = beside or (not is_remote(file.path) and storage.is_writable(os.path.dirname(file.path) or "."))
    _keep([near, far] if here else [far], _dump(index, file, kind))
    return index


def cached(name: str, make: Callable[[], _Contents], wanted: bool) -> _Contents:
    """The result of `make`, a JSON object and arrays; if `wanted`, kept in the cache folder under a name of its own."""
    path = f"{storage.cache_folder()}/{name}"
    with contextlib.suppress(*_DAMAGE):
        if wanted:
            return _unpack(storage.read(path))
    made = make()
    if wanted:
        _keep([path], _pack(*made))
    return made


def _keep(places: Sequence[str], data: bytes) -> None:
    """Writes a file to the first of the places that can be written, if one can."""
    for path in places:
        try:
            storage.write_atomically(path, data)
            return
        except (OSError, CocaError) as error:
            _log.info("%s cannot be written: %s", path, error)


def _about(file: File, kind: str) -> dict[str, str | int]:
    return {"format": _FORMAT, "kind": kind, "size": file.size, "version": file.version}


def _pack(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz file of arrays and of a JSON object about them."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    return buffer.getvalue()


def _unpack(data: bytes) -> _Contents:
    """The contents of a file that `_pack` made; raises one of `_DAMAGE` if it is damaged."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = dict(file)
    about = json.loads(arrays.pop("about").tobytes())
    if not isinstance(about, dict):
        raise ValueError("no JSON object")
    return about, arrays


def _dump(index: Index, file: File, kind: str) -> bytes:
    about = {**_about(file, kind), "damage": dict(index.damage), "names": dict(index.names), "digest": index.digest}
    return _pack(about, _arrays(index))


def _load(path: str, file: File, kind: str, columns: int) -> Index | None:
    """The index that the file holds; None if it is missing, damaged, or another shard's."""
    try:
        data = storage.read(path, largest=_LARGEST)
    except DataError:
        raise
    except (ReadError, CocaError):
        return None
    try:
        about, arrays = _unpack(data)
        if not _about(file, kind).items() <= about.items():
            return None
        keys = Strings(arrays["keys"], arrays["key_ends"]) if "keys" in arrays else None
        damage = {str(cause): int(count) for cause, count in about["damage"].items()}
        names = {str(cause): str(name) for cause, name in about["names"].items()}
        index = Index(arrays["spans"], keys, arrays.get("ends"), damage, str(about["digest"]), names)
        if not _is_sound(index, file, columns):
            raise ValueError("does not fit its file")
    except _DAMAGE as error:
        _log.warning("the index %s is damaged (%s) and is made anew", path, error)
        return None
    return index


def _is_sound(index: Index, file: File, columns: int) -> bool:
    spans, keys = index.spans, index.keys
    if spans.dtype != np.int64 or spans.ndim != 2 or spans.shape[1] != columns:
        return False
    offsets, sizes = spans[:, ::2], spans[:, 1::2]
    inside = (offsets >= -1) & (sizes >= 0) & (offsets <= file.size - sizes)
    bounds = [] if index.ends is None else [(index.ends, len(spans))]
    if keys is not None:
        bounds.append((keys.ends, len(keys.data)))
        inside &= len(keys) == len(index) and keys.data.dtype == np.uint8
    return bool(inside.all()) and all(_are_ends(ends, total) for ends, total in bounds)


def _are_ends(ends: np.ndarray, total: int) -> bool:
    rising = ends.dtype == np.int64 and ends.ndim == 1 and (np.diff(ends, prepend=0) >= 0).all()
    return bool(rising) and (ends[-1] if len(ends) else 0) == total
