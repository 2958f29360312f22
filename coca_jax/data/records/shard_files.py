"""The files that are the shards of a dataset."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from coca_jax.config.data import SHARD_ENDINGS, DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.selection import Selection, expand_braces
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File


def ends_in(name: str, endings: Sequence[str]) -> bool:
    """Whether a file's name has one of the endings, possibly plural or numbered: a.tfrecords, a.tar-00000-of-00010.

    The index that is kept beside a shard has none.
    """
    numbered = rf"({'|'.join(map(re.escape, endings))})s?([-._]\d[^/]*)?"
    return not name.endswith(".index") and re.search(f"{numbered}$", name.lower()) is not None


def format_of(names: Iterable[str]) -> str:
    """The format that reads a folder of files with such names; "" if none does."""
    names = list(names)
    shards = (one for one, endings in SHARD_ENDINGS.items() if any(ends_in(name, endings) for name in names))
    return next(shards, "folder" if any(map(fields.is_media_file, names)) else "")


def find_shards(dataset: DatasetConfig, selection: Selection) -> list[File]:
    """The selected shards of `dataset.path`: a folder, a shard, or a pattern such as {00..99}.tar; CocaError if none."""
    endings, listed = SHARD_ENDINGS[dataset.format], _files(dataset.path)
    everything = [file for file in listed if ends_in(file.name, endings)]
    files = [file for file in everything if selection.has_file(file.name)]
    if files:
        return files
    kind, names = endings[0], [file.name for file in everything]
    other = "" if names else format_of(file.name for file in listed)
    if other:
        raise CocaError(
            f"there is no {kind} file below {dataset.path}, but there are files of another format: set format={other}"
        )
    there = fields.listing(names) if names else f"no {kind} file at all"
    but = f" and not {' '.join(selection.without_files)}" if selection.without_files else ""
    raise CocaError(
        f"no {kind} file below {dataset.path} matches {' '.join(selection.files)}{but} (there is {there}): change "
        "the dataset's path, train_files or evaluation_files"
    )


def _files(path: str) -> list[File]:
    only = storage.stat(path)
    if only or "{" not in path:
        return [only] if only else storage.list_files(path)
    paths = expand_braces(path)
    top = path.partition("{")[0].rfind("/") + 1
    files = storage.stat_each(paths)
    missing = [one for one, file in zip(paths, files, strict=True) if file is None]
    if missing:
        raise CocaError(
            f"{missing[0]} does not exist ({len(missing)} of the {len(paths)} files of {path} are missing): change the "
            "numbers in the pattern"
        )
    return [dataclasses.replace(file, name=one[top:]) for one, file in zip(paths, files, strict=True) if file]


def lost(file: File, cause: str) -> BadRecord:
    """The cause of a record whose shard was readable before."""
    return BadRecord(cause if storage.stat(file.path) else "missing file")


def unreadable(file: File, kind: str, reason: object) -> CocaError:
    """The error for a shard that is no file of its kind."""
    return CocaError(
        f"{file.path} cannot be read as {kind} ({reason}): replace it, or leave it out of the dataset's train_files and "
        "evaluation_files"
    )
