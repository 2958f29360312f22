"""The index of a folder of images, kept up to date: only new and changed images are embedded."""

import concurrent.futures
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
from coca_jax.storage.files import LARGEST, File, list_files

PLACE = ".coca_index"  # the index's default folder, below the images
_SUFFIXES = (*fields.IMAGE_SUFFIXES, *fields.UNREAD_SUFFIXES)  # the latter are reported as unreadable
_BATCH = 1_024  # images decoded at a time
_NAMED = 5  # unreadable files
_SAVE_EVERY = 4_096  # new images at least; later a quarter of the index, so that few saves write its whole size

_log = logging.getLogger(__name__)


def update(model: Model, size: int, folder: str | os.PathLike, place: str | os.PathLike = "") -> Index:
    """Brings the index of the images below a folder up to date, or makes it; logs the changes and unreadable files.

    Hidden files and folders are left out, symbolic links are followed (`storage.files.list_files`). A file is unchanged
    if its name, size and modification time are. Intermediate saves let an interrupted update continue where it was.
    `place` is the index's, by default `.coca_index` in the folder; the model takes images of `size` pixels a side.

    Raises CocaError if the folder does not exist or holds no image, or the index is damaged, of another model or of
    another folder, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    images, place = _images(folder), place or folder / PLACE
    files.check_writable(place)  # before hours of work
    index = _open(model, folder, place)
    before = len(index)
    current = {_entry(file) for file in images.values()}
    rows = [row for row, entry in enumerate(index.entries) if entry in current]
    if len(rows) < before:
        index.keep(np.array(rows, np.int64))
    known = set(index.entries)
    new = [file for file in images.values() if _entry(file) not in known]
    unreadable: list[str] = []
    unsaved = before - len(rows)
    for start in range(0, len(new), _BATCH):
        loaded = _load(new[start : start + _BATCH], size)
        readable = {file: pixels for file, pixels in loaded.items() if not isinstance(pixels, str)}
        unreadable += [reason for reason in loaded.values() if isinstance(reason, str)]
        if readable:
            index.append([_entry(file) for file in readable], [model.embed_images(np.stack(list(readable.values())))])
            unsaved += len(readable)
        counts = (len(index) - len(rows), len(new), len(unreadable))
        _log.info("%s of %s new images indexed, %s unreadable", *(f"{n:,}" for n in counts))
        if unsaved >= max(_SAVE_EVERY, len(index) // 4):
            index, unsaved = _save(index, place), 0
    if not len(index):
        raise CocaError(f"none of the {len(images)} images below {folder} can be read: {unreadable[0]}")
    if unsaved:
        index = _save(index, place)
    changes = (len(index), len(index) - len(rows), len(rows), before - len(rows))
    _log.info("%s images in the index: %s new, %s as before, %s gone or changed", *(f"{n:,}" for n in changes))
    if unreadable:
        more = "; …" if len(unreadable) > _NAMED else ""
        count = f"{len(unreadable):,} of {len(images):,}"
        _log.warning("left out %s images: %s%s", count, "; ".join(unreadable[:_NAMED]), more)
    return index


def _images(folder: Path) -> dict[str, File]:
    """The image files below a folder, by name and in the names' order."""
    if not folder.is_dir():
        raise CocaError(f"the folder {folder} does not exist: name a folder of images with --images")
    images = {file.name: file for file in list_files(str(folder)) if fields.suffix_of(file.name) in _SUFFIXES}
    if not images:
        raise CocaError(f"there is no image below {folder}: name a folder of images (png, jpg, webp, …)")
    return images


def _entry(file: File) -> Entry:
    return Entry(file.name, f"{file.size} {file.version}")


def _open(model: Model, folder: Path, place: str | os.PathLike) -> Index:
    if not files.exists(place):
        return Index(model, [], [model.embed_images([])], str(folder))
    index = Index.load(model, place)
    # In its default place it moves with its images.
    if index.folder != str(folder) and Path(place).absolute() != folder / PLACE:
        other = f"the images in {index.folder}" if index.folder else "other images"
        raise CocaError(f"the index in {place} is of {other}, not of {folder}: name another place with --index")
    index.folder = str(folder)
    return index


def _load(images: Sequence[File], size: int) -> dict[File, np.ndarray | str]:
    """The pixels of each file, or the reason why it cannot be read."""

    def load(file: File) -> np.ndarray | str:
        if file.size > LARGEST:
            return f"{file.path} is too large for an image"
        try:
            return load_image(file.path, size)
        except CocaError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor() as threads:  # Pillow decodes outside the interpreter's lock
        return dict(zip(images, threads.map(load, images), strict=True))


def _save(index: Index, place: str | os.PathLike) -> Index:
    """The index after a save, memory-mapped, so that new embeddings need not stay in memory."""
    index.save(place, index.dtype)
    return Index(index.model, index.entries, [files.read(place).embeddings], index.folder)
