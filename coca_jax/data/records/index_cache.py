"""The shards of a dataset, and their counts and selections, cached in a folder of the machine or in a bucket."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import shard_index
from coca_jax.data.records.record import Census
from coca_jax.data.records.selection import Selection, expand_braces
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File


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


def ends_in(name: str, endings: Sequence[str]) -> bool:
    """Whether a file's name has one of the endings, possibly plural or numbered: a.tfrecords, a.tar-00000-of-00010.

    The index that is kept beside a shard has none.
    """
    numbered = rf"({'|'.join(map(re.escape, endings))})s?([-._]\d[^/]*)?"
    return not name.endswith(".index") and re.search(f"{numbered}$", name.lower()) is not None


def find_shards(dataset: DatasetConfig, selection: Selection, endings: Sequence[str]) -> list[File]:
    """The selected shards of `dataset.path`: a folder, a shard, or a pattern such as shards/{00000..00099}.tar.

    Args:
      endings: of the shards' names; see `ends_in`.

    Raises:
      CocaError: there is no such folder, or no such file.
    """
    everything = [file for file in _files(dataset.path) if ends_in(file.name, endings)]
    files = [file for file in everything if selection.has_file(file.name)]
    if files:
        return files
    kind, names = endings[0], [file.name for file in everything]
    there = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else f"no {kind} file at all"
    but = f" and not {' '.join(selection.without_files)}" if selection.without_files else ""
    raise CocaError(
        f"no {kind} file below {dataset.path} matches {' '.join(selection.files)}{but} (there is {there}): change "
        "the dataset's path, train_files or evaluation_files"
    )


def _files(path: str) -> list[File]:
    only = storage.stat(path)
    if only:
        return [only]
    if "{" not in path:
        return storage.list_files(path)
    paths = expand_braces(path)
    top = len(path.partition("{")[0].rpartition("/")[0]) + 1 if "/" in path.partition("{")[0] else 0
    files = storage.stat_each(paths)
    missing = [one for one, file in zip(paths, files, strict=True) if file is None]
    if missing:
        raise CocaError(
            f"{missing[0]} does not exist ({len(missing)} of the {len(paths)} files of {path} are missing): change the "
            "numbers in the pattern"
        )
    return [dataclasses.replace(file, name=one[top:]) for one, file in zip(paths, files, strict=True) if file]


def cached_counts(name: str, shards: int) -> Counts | None:
    """The counts that were cached under a name; None if there are none, or of another number of shards."""
    try:
        about, arrays = shard_index.unpack(storage.read(_place("counts", name)))
        records = arrays["records"]
        if records.shape != (shards,) or records.dtype != np.int64:
            return None
        return Counts(records, Census(**about["census"]), str(about["digest"]))
    except shard_index.DAMAGE:
        return None


def cache_counts(name: str, counts: Counts) -> None:
    """Writes the counts into the cache folder, if that can be written."""
    about = {"census": vars(counts.census), "digest": counts.digest}
    shard_index.keep([_place("counts", name)], shard_index.pack(about, records=counts.records))


def cached_choice(name: str, records: int) -> np.ndarray | None:
    """bool [records] that were cached under a name; None if there are none, or another number."""
    try:
        bits = np.frombuffer(storage.read(_place("selections", name)), np.uint8)
    except storage.ReadError:
        return None
    return np.unpackbits(bits, count=records).astype(bool) if len(bits) == -(-records // 8) else None


def cache_choice(name: str, chosen: np.ndarray) -> None:
    """Writes bool [records] into the cache folder, if that can be written."""
    shard_index.keep([_place("selections", name)], np.packbits(chosen).tobytes())


def _place(kind: str, name: str) -> str:
    return f"{storage.cache_folder()}/{kind}/{name}"
