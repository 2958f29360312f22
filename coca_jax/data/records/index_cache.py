"""The shards of a dataset, and their counts and selections, cached in a folder of the machine or in a bucket."""

import dataclasses
import io
import json
import logging
from collections.abc import Callable

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import shard_index
from coca_jax.data.records.record import Census
from coca_jax.data.records.selection import Selection
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Counts:
    """The counts of a dataset's shards.

    Attributes:
      records: int64 [shards], of each shard that belong to the store.
      census: of all shards.
      digest: of all shards' indices.
    """

    records: np.ndarray
    census: Census
    digest: str


def find_shards(source: DatasetConfig, selection: Selection, is_shard: Callable[[str], bool], what: str) -> list[File]:
    """The shards below `source.path` (or the one that it is) whose names are selected.

    Raises:
      CocaError: no such folder, or no such file.
    """
    only = storage.stat(source.path)
    everything = [only] if only else storage.list_files(source.path)
    everything = [file for file in everything if is_shard(file.name)]
    found = [file for file in everything if selection.has_file(file.name)]
    if not found:
        names = [file.name for file in everything]
        there = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else f"no {what} file at all"
        but = f" and not {' '.join(selection.without_files)}" if selection.without_files else ""
        raise CocaError(
            f"no {what.lstrip('.')} below {source.path} matches {' '.join(selection.files)}{but} (there is "
            f"{there}): change data.dataset.path, data.dataset.train_files or data.dataset.evaluation_files"
        )
    return found


def cached_counts(name: str, shards: int) -> Counts | None:
    """The counts that were cached under a name; None if there are none, or of another number of shards."""
    try:
        with np.load(io.BytesIO(storage.read(_place("counts", name))), allow_pickle=False) as arrays:
            records, about = arrays["records"], json.loads(arrays["about"].tobytes())
            if records.shape != (shards,) or records.dtype != np.int64:
                return None
            return Counts(records, Census(**about["census"]), str(about["digest"]))
    except shard_index.DAMAGE:
        return None


def cache_counts(name: str, counts: Counts) -> None:
    """Writes the counts into the cache folder, if that can be written."""
    buffer = io.BytesIO()
    about = json.dumps({"census": vars(counts.census), "digest": counts.digest})
    np.savez(buffer, allow_pickle=False, records=counts.records, about=np.frombuffer(about.encode(), np.uint8))
    _cache(_place("counts", name), buffer.getvalue())


def cached_choice(name: str, records: int) -> np.ndarray | None:
    """bool [records] that were cached under a name; None if there are none, or another number."""
    try:
        bits = np.frombuffer(storage.read(_place("selections", name)), np.uint8)
    except storage.ReadError:
        return None
    return np.unpackbits(bits, count=records).astype(bool) if len(bits) == -(-records // 8) else None


def cache_choice(name: str, chosen: np.ndarray) -> None:
    """Writes bool [records] into the cache folder, if that can be written."""
    _cache(_place("selections", name), np.packbits(chosen).tobytes())


def _place(kind: str, name: str) -> str:
    return f"{storage.cache_folder()}/{kind}/{name}"


def _cache(place: str, data: bytes) -> None:
    try:
        storage.write_atomically(place, data)
    except OSError as error:
        _log.info("%s cannot be written: %s", place, error)
