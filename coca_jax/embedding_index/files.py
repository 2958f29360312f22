"""An index's folder: embeddings as .npy, names as JSON lines, and `index.json`, which says what belongs together.

`index.json` is written last and replaced as a whole, and names the two others by a number that no earlier one had: a
reader finds an old index or a new one, never half of each. Nothing is ever unpickled.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from coca_jax.errors import CocaError
from coca_jax.storage.files import is_remote, write_atomically

_FORMAT = 1
_INFO = "index.json"
_AT_ONCE = 16_384  # rows written at a time
_UNWRITABLE = "the index cannot be written to {} ({}): name another place for it"
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A picture of an index.

    Attributes:
      name: what results call it; in the index of a folder the file's path below the folder.
      stamp: the file's size and time of change (nanoseconds), where it is kept up to date.
    """

    name: str
    stamp: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Stored:
    """What an index's folder holds.

    Attributes:
      digest, step: of the model that made the embeddings.
      pictures: the folder that the entries' names are of, "" where there is none.
      entries: N of them.
      embeddings: [N, E], memory-mapped.
    """

    digest: str
    step: int
    pictures: str
    entries: list[Entry]
    embeddings: np.ndarray


class Kept:
    """Some rows of embeddings that lie on a disk, as embeddings of their own; a slice alone is read."""

    def __init__(self, embeddings: np.ndarray, rows: np.ndarray):
        """Rows [n] of [N, E]; ascending ones are read from front to back."""
        self._embeddings, self._rows = embeddings, rows
        self.shape, self.dtype = (len(rows), *embeddings.shape[1:]), embeddings.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._embeddings[self._rows[rows]])


def exists(folder: str | os.PathLike) -> bool:
    return (Path(folder) / _INFO).is_file()


def check_writable(folder: str | os.PathLike) -> None:
    """Raises CocaError where `write` would, for all that can be told before."""
    folder = _local(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "not writable" if there.is_dir() else "a file"
        raise CocaError(_UNWRITABLE.format(folder, f"{there} is {why}"))


def read(folder: str | os.PathLike) -> Stored:
    """The index in a folder.

    Raises:
      CocaError: there is none, or it is damaged.
    """
    folder = _local(folder)
    if not exists(folder):
        raise CocaError(f"there is no index in {folder}: make one with index.save, or with python -m coca_jax.search")
    damaged = f"the index in {folder} is damaged ({{}}): remove that folder and index the pictures again"
    try:
        info = json.loads((folder / _INFO).read_text("utf-8"))
        if info["format"] != _FORMAT:
            raise CocaError(
                f"the index in {folder} has the format {info['format']!r}, which this version does not "
                "read: remove that folder and index the pictures again"
            )
        number, count, width = (_whole(info[key]) for key in ("number", "count", "width"))
        embeddings = np.load(folder / _embeddings(number), mmap_mode="r" if count else None, allow_pickle=False)
        if embeddings.shape != (count, width) or embeddings.dtype.name not in DTYPES:
            raise ValueError(f"{_embeddings(number)} holds {embeddings.dtype} {embeddings.shape}")
        with open(folder / _names(number), encoding="utf-8") as lines:
            entries = [_entry(json.loads(line)) for line in lines]
        if len(entries) != count:
            raise ValueError(f"{_names(number)} has {len(entries)} lines for {count} pictures")
        return Stored(str(info["digest"]), _whole(info["step"]), str(info["pictures"]), entries, embeddings)
    except KeyError as error:
        raise CocaError(damaged.format(f"{error} is missing")) from error
    except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise CocaError(damaged.format(error)) from error


def write(
    folder: str | os.PathLike,
    parts: Sequence[np.ndarray],
    entries: Sequence[Entry],
    *,
    digest: str,
    step: int,
    pictures: str,
    dtype: str = "float32",
) -> None:
    """Writes an index, in the place of the one that may be there.

    Args:
      folder: it is made where it does not exist.
      parts: arrays [n, E], or such as are sliced like them, that together are the embeddings.
      entries, digest, step, pictures: see `Stored`.
      dtype: "float16" takes half of the space; see `Index.save`.

    Raises:
      CocaError: the folder cannot be written to, or there is no such type.
    """
    folder = _local(folder)
    if dtype not in DTYPES:
        raise CocaError(f"an index cannot hold {dtype!r}: choose one of {', '.join(DTYPES)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(_numbers(folder), default=0)
        count, width = len(entries), parts[0].shape[1]
        with open(folder / _embeddings(number), "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, width)})
            for part in parts:
                for start in range(0, len(part), _AT_ONCE):
                    file.write(np.ascontiguousarray(part[start : start + _AT_ONCE], dtype).tobytes())
            _flushed(file)
        with open(folder / _names(number), "w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in map(_line, entries))
            _flushed(file)
        info = {
            "format": _FORMAT,
            "number": number,
            "count": count,
            "width": width,
            "digest": digest,
            "step": step,
            "pictures": pictures,
        }
        write_atomically(folder / _INFO, json.dumps(info, indent=2) + "\n")
        for old in set(_numbers(folder)) - {number}:  # whoever has them open keeps them
            (folder / _embeddings(old)).unlink(missing_ok=True)
            (folder / _names(old)).unlink(missing_ok=True)
    except OSError as error:
        raise CocaError(_UNWRITABLE.format(folder, error.strerror)) from error


def _local(folder: str | os.PathLike) -> Path:
    if is_remote(folder):
        raise CocaError(f"an index lies on a disk, not in a bucket such as {folder}: name a local folder")
    return Path(folder)


def _embeddings(number: int) -> str:
    return f"embeddings-{number}.npy"


def _names(number: int) -> str:
    return f"pictures-{number}.jsonl"


def _numbers(folder: Path) -> Iterable[int]:
    found = (re.fullmatch(r"(?:embeddings|pictures)-(\d+)\.(?:npy|jsonl)", path.name) for path in folder.iterdir())
    return [int(match[1]) for match in found if match]


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _line(entry: Entry) -> dict:
    stamp = {} if entry.stamp is None else {"size": entry.stamp[0], "changed": entry.stamp[1]}
    return {"name": entry.name, **stamp}


def _entry(line: dict) -> Entry:
    stamp = (_whole(line["size"]), line["changed"]) if "size" in line else None
    if not isinstance(line["name"], str):
        raise ValueError(f"{line['name']!r} is no name")
    return Entry(line["name"], stamp)


def _flushed(file) -> None:
    file.flush()
    os.fsync(file.fileno())
