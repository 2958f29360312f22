"""An index on a disk: `index.json` lists its entries, `embeddings-<number>.npy` holds their embeddings.

`index.json` is written last and replaced atomically, and refers to the embeddings by a number that no earlier index
had: a reader sees an old index or a new one, never parts of both.
"""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coca_jax.errors import CocaError
from coca_jax.storage.files import is_remote, write_atomically

_FORMAT = 2
_INFO = "index.json"
_ROWS = 16_384  # written at a time
_UNWRITABLE = "the index cannot be written to {} ({}): name another place for it"
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image of an index."""

    name: str  # in results; in the index of a folder the file's path relative to the folder
    version: str = ""  # of the file, changes with its contents; "" if the image is not a file of the index's folder


@dataclasses.dataclass(frozen=True)
class StoredIndex:
    """The contents of an index's folder."""

    digest: str  # of the model that made the embeddings
    step: int  # of that model
    folder: str  # that the entries' names are relative to, "" if they are not files of a folder
    entries: list[Entry]
    embeddings: np.ndarray  # float [N, E], memory-mapped


class Rows:
    """Some rows of embeddings on a disk, as an array [n, E] that reads only the rows by which it is indexed."""

    def __init__(self, embeddings: "np.ndarray | Rows", rows: np.ndarray):
        self._embeddings, self._rows = embeddings, rows
        self.shape: tuple[int, int] = (len(rows), embeddings.shape[1])
        self.dtype: np.dtype = embeddings.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._embeddings[self._rows[rows]])


def exists(place: str | os.PathLike) -> bool:
    """Whether a folder holds an index."""
    return (_local(place) / _INFO).is_file()


def check_writable(place: str | os.PathLike) -> None:
    """Raises CocaError if `write` certainly would."""
    place = _local(place).absolute()
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise CocaError(_UNWRITABLE.format(place, f"{existing} is not a writable folder"))


def read(place: str | os.PathLike) -> StoredIndex:
    """The index in a folder; raises CocaError if there is none, or it is damaged."""
    place = _local(place)
    if not exists(place):
        raise CocaError(f"there is no index in {place}: make one with index.save, or with python -m coca_jax.search")
    remedy = "remove that folder and index the images again"
    try:
        info = json.loads((place / _INFO).read_text("utf-8"))
        if info["format"] != _FORMAT:
            raise CocaError(f"the index in {place} has the unknown format {info['format']!r}: {remedy}")
        entries = [Entry(_checked(name, str), _checked(version, str)) for name, version in info["entries"]]
        file = _embeddings(_checked(info["number"], int))
        embeddings = np.load(place / file, mmap_mode="r" if entries else None, allow_pickle=False)
        if embeddings.ndim != 2 or len(embeddings) != len(entries) or embeddings.dtype.name not in DTYPES:
            raise ValueError(f"{file} holds {embeddings.dtype} {embeddings.shape} for {len(entries)} images")
        digest, step, folder = _checked(info["digest"], str), _checked(info["step"], int), _checked(info["folder"], str)
        return StoredIndex(digest, step, folder, entries, embeddings)
    except KeyError as error:
        raise CocaError(f"the index in {place} is damaged ({error} is missing): {remedy}") from error
    except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise CocaError(f"the index in {place} is damaged ({error}): {remedy}") from error


def write(
    place: str | os.PathLike,
    parts: Sequence[np.ndarray | Rows],
    entries: Sequence[Entry],
    *,
    digest: str,
    step: int,
    folder: str,
    dtype: str = "float32",
) -> None:
    """Writes an index into its own folder `place`, or replaces the index in it.

    `parts`, arrays [n, E], together are the embeddings; `StoredIndex` has the other arguments. Raises CocaError if the
    folder cannot be written to, or the dtype is none of DTYPES.
    """
    place = _local(place)
    if dtype not in DTYPES:
        raise CocaError(f"an index cannot hold {dtype!r}: choose one of {', '.join(DTYPES)}")
    try:
        place.mkdir(parents=True, exist_ok=True)
        number = 1 + max(_numbers(place), default=0)
        with open(place / _embeddings(number), "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(entries), parts[0].shape[1])})
            for part in parts:
                for start in range(0, len(part), _ROWS):
                    file.write(np.ascontiguousarray(part[start : start + _ROWS], dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
        info = {"format": _FORMAT, "number": number, "digest": digest, "step": step, "folder": folder}
        lines = [(entry.name, entry.version) for entry in entries]
        write_atomically(place / _INFO, json.dumps({**info, "entries": lines}))
        for old in _numbers(place) - {number}:  # readers that have it open can still read it
            (place / _embeddings(old)).unlink(missing_ok=True)
    except OSError as error:
        raise CocaError(_UNWRITABLE.format(place, error.strerror)) from error


def _local(place: str | os.PathLike) -> Path:
    if is_remote(place):
        raise CocaError(f"an index lies on a disk, not in a bucket such as {place}: name a local folder")
    return Path(place).expanduser()


def _embeddings(number: int) -> str:
    return f"embeddings-{number}.npy"


def _numbers(place: Path) -> set[int]:
    matches = (re.fullmatch(r"embeddings-(\d+)\.npy", path.name) for path in place.iterdir())
    return {int(match[1]) for match in matches if match}


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not of type {kind.__name__}")
    return value
