"""Sets of shards: which files they are, and what was counted in them, kept in the cache folder."""

import dataclasses
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.images.decode import BadRecord
from coca_jax.data.records import shard_index
from coca_jax.data.records.open import is_selected
from coca_jax.errors import CocaError
from coca_jax.storage import reading as storage
from coca_jax.storage.reading import File

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Counts:
    """What is known of a set's shards.

    Attributes:
      records: int64 [shards], of each shard that belong to the store.
      damage: losses by cause.
      total: records before any selection.
      digest: of all shards' indices.
    """

    records: np.ndarray
    damage: Counter[str]
    total: int
    digest: str


def find(
    source: DatasetConfig, patterns: Sequence[str], without: Sequence[str], is_shard: Callable[[str], bool], what: str
) -> list[File]:
    """The shards below `source.path` (or the one that it is) whose names match one of `patterns` and none of `without`.

    Raises:
      CocaError: no such folder, or no such file.
    """
    only = storage.stat(source.path)
    everything = [only] if only else storage.find(source.path)
    everything = [file for file in everything if is_shard(file.name)]
    found = [file for file in everything if is_selected(file.name, patterns, without)]
    if not found:
        names = [file.name for file in everything]
        there = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else f"no {what} file at all"
        but = f" and not {' '.join(without)}" if without else ""
        raise CocaError(
            f"no {what.lstrip('.')} below {source.path} matches {' '.join(patterns)}{but} (there is "
            f"{there}): change data.dataset.path, data.dataset.train_files or data.dataset.evaluation_files"
        )
    return found


def kept_counts(name: str, shards: int) -> Counts | None:
    """The counts that were kept under a name; None where there are none, or others."""
    try:
        with np.load(io.BytesIO(storage.read(_place("sets", name))), allow_pickle=False) as kept:
            records, about = kept["records"], json.loads(kept["about"].tobytes())
            if records.shape != (shards,) or records.dtype != np.int64:
                return None
            return Counts(records, Counter(about["damage"]), int(about["total"]), str(about["digest"]))
    except shard_index.DAMAGE:
        return None


def keep_counts(name: str, counts: Counts) -> None:
    buffer = io.BytesIO()
    about = json.dumps({"damage": counts.damage, "total": counts.total, "digest": counts.digest})
    np.savez(buffer, records=counts.records, about=np.frombuffer(about.encode(), np.uint8), allow_pickle=False)
    _keep(_place("sets", name), buffer.getvalue())


def kept_choice(name: str, records: int) -> np.ndarray | None:
    """bool [records] that were kept under a name; None where there are none, or others."""
    try:
        bits = np.frombuffer(storage.read(_place("selections", name)), np.uint8)
    except BadRecord:
        return None
    return np.unpackbits(bits, count=records).astype(bool) if len(bits) == -(-records // 8) else None


def keep_choice(name: str, chosen: np.ndarray) -> None:
    _keep(_place("selections", name), np.packbits(chosen).tobytes())


def _place(kind: str, name: str) -> str:
    return f"{storage.cache_folder()}/{kind}/{name}"


def _keep(place: str, data: bytes) -> None:
    try:
        storage.write(place, data)
    except OSError as error:
        _log.info("%s cannot be written: %s", place, error)
