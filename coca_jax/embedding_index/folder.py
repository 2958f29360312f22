"""The index of a folder of pictures, kept up to date: only what is new or has changed is embedded."""

import concurrent.futures
import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coca_jax.data.images.decode import load_image
from coca_jax.data.records import fields
from coca_jax.embedding_index import files
from coca_jax.embedding_index.files import Entry
from coca_jax.embedding_index.index import Index, Model
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

PLACE = ".coca_index"  # below the pictures, by default
_SUFFIXES = (*fields.IMAGE_SUFFIXES, *fields.UNREAD_SUFFIXES)  # the latter are named as unreadable
_AT_ONCE = 1_024  # pictures decoded at a time
_LARGEST = 256 * 1024 * 1024  # bytes of one picture
_SAVE_EVERY = 4_096  # new pictures at least; later a quarter of the index, so that its size is written few times over

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Update:
    """An index and what bringing it up to date did.

    Attributes:
      added, kept, removed: how many pictures; one that changed was removed and added.
      unreadable: for each file that is no picture a sentence that says why.
    """

    index: Index
    added: int
    kept: int
    removed: int
    unreadable: Sequence[str]


def update(model: Model, size: int, pictures: str | os.PathLike, place: str | os.PathLike) -> Update:
    """Brings the index in the folder `place` up to date with the pictures below another folder, or makes it.

    A file is the same where its name, size and time of change are. What is done is saved from time to time, so that an
    interrupted update goes on where it was.

    Args:
      model: it must be the one that made the index.
      size: pixels a side, as the model takes them.
      pictures: those below hidden folders are left out, and links are followed.
      place: of the index.

    Raises:
      CocaError: there is no such folder or no picture in it, or the index is damaged, of another model or of another
        folder, or cannot be written.
    """
    pictures = Path(pictures).absolute()
    found = {entry.name: entry for entry in _listed(pictures)}
    files.check_writable(place)  # before hours of work
    index = _opened(model, pictures, place)
    before = len(index)
    rows = [row for row, entry in enumerate(index.entries) if found.get(entry.name) == entry]
    if len(rows) < before:
        index.keep(np.array(rows, np.int64))
    known = {entry.name for entry in index.entries}
    new = [entry for entry in found.values() if entry.name not in known]
    unreadable, unsaved = [], before - len(rows)
    for start in range(0, len(new), _AT_ONCE):
        good, pixels, bad = _decoded(pictures, new[start : start + _AT_ONCE], size)
        unreadable += bad
        if good:
            index.append(good, [model.embed_images(np.stack(pixels))])
            unsaved += len(good)
        _log.info("%s of %s new pictures indexed", f"{min(start + _AT_ONCE, len(new)):,}", f"{len(new):,}")
        if unsaved >= max(_SAVE_EVERY, len(index) // 4):
            index, unsaved = _saved(index, place), 0
    if not len(index):
        raise CocaError(f"none of the {len(found)} pictures below {pictures} can be read: {unreadable[0]}")
    if unsaved:
        index = _saved(index, place)
    return Update(index, len(index) - len(rows), len(rows), before - len(rows), unreadable)


def _listed(pictures: Path) -> list[Entry]:
    if not pictures.is_dir():
        raise CocaError(f"the folder {pictures} does not exist: name a folder of pictures with --images")
    listed = storage.list_files(str(pictures))
    found = [
        Entry(file.name, (file.size, int(file.version))) for file in listed if fields.suffix_of(file.name) in _SUFFIXES
    ]
    if not found:
        raise CocaError(f"there is no picture below {pictures}: name a folder of pictures (png, jpg, webp, …)")
    return found


def _opened(model: Model, pictures: Path, place: str | os.PathLike) -> Index:
    if not files.exists(place):
        return Index(model, [], [model.embed_images([])], str(pictures))
    index = Index.load(model, place)
    # In its default place it moves with its pictures.
    if index.pictures != str(pictures) and Path(place).absolute() != pictures / PLACE:
        other = f"the pictures in {index.pictures}" if index.pictures else "other pictures"
        raise CocaError(f"the index in {place} is of {other}, not of {pictures}: name another place with --index")
    index.pictures = str(pictures)
    return index


def _decoded(pictures: Path, entries: Sequence[Entry], size: int) -> tuple[list[Entry], list[np.ndarray], list[str]]:
    """The entries that can be read, their pixels, and why the others cannot."""

    def decoded(entry: Entry) -> np.ndarray | str:
        if entry.stamp and entry.stamp[0] > _LARGEST:
            return f"{pictures / entry.name} is too large to be read as a picture"
        try:
            return load_image(pictures / entry.name, size)
        except CocaError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor() as threads:  # Pillow decodes outside the interpreter's lock
        found = list(zip(entries, threads.map(decoded, entries), strict=True))
    good = [(entry, pixels) for entry, pixels in found if not isinstance(pixels, str)]
    bad = [why for _, why in found if isinstance(why, str)]
    return [entry for entry, _ in good], [pixels for _, pixels in good], bad


def _saved(index: Index, place: str | os.PathLike) -> Index:
    """The index, read from where it was saved: what is new need not stay in memory."""
    index.save(place, index.dtype)
    return Index(index.model, index.entries, [files.read(place).embeddings], index.pictures)
