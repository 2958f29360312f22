"""Pictures or clips in files of their own, each with its captions, by index."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.formats.manifest import SUFFIXES, Manifest
from coca_jax.data.records.record import BadRecord, Census, Record, RecordStore, RecordText, Subset, bad_records
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import is_remote

_MANIFESTS = ("captions.jsonl", "captions.csv", "captions.json")
_INNER = "images/"  # where manifests' pictures often lie
_AT_ONCE = 10_000  # rows of a manifest that are read together when all are
_PROBES = 100  # pictures of a manifest that are looked for when it is opened


def open_folder(source: DatasetConfig, selection: Selection) -> RecordStore:
    """The records of `source.path`, a manifest or a folder, that belong to a split; files are the images' names.

    Raises:
      CocaError: see `FolderRecords`.
    """
    fields.check_templates(source)
    store = FolderRecords(source)
    if selection.without_files or selection.files != ("*",):
        usable = np.fromiter(map(selection.has_file, (store.key(i) for i in range(len(store)))), bool, len(store))
    else:
        usable = np.ones(len(store), bool)
    chosen, held_out = selection.choose(lambda: store.names, lambda: store.matching(selection), usable)
    census = Census(int(usable.sum()) or len(store), held_out, store.damage)
    if chosen.all():
        store.census = census
        return store
    return Subset(store, np.flatnonzero(chosen), census)


class FolderRecords:
    """Pictures named by a manifest, or all below a folder, captioned by a `.txt` file beside each.

    A folder may hold its manifest as captions.jsonl, captions.csv or captions.json. A row such as
    {"file_name": "a.jpg", "captions": ["…", "…"]} speaks of one picture, and several rows may speak of the same one.
    File names are relative to the manifest's folder, to its `images/`, or to where COCO's zips put them (see
    `annotations`). Metadata has "stem", the file's name without its ending, and "folder", the name of the folder that
    it lies in; of several rows that of the first, and "rows": all of them.

    Attributes: see `RecordStore`; names: the records' keys.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(self, source: DatasetConfig):
        """Lists the pictures and their captions.

        Raises:
          CocaError: no such folder or file, no picture, no caption, or a manifest that cannot be understood.
        """
        self._source = source
        self.damage: Counter[str] = Counter()
        path = source.path
        file = storage.stat(path) if path.endswith(SUFFIXES) else None
        if path.endswith(SUFFIXES) and file is None:
            raise CocaError(f"the file {path} does not exist: set --config.data.path to a manifest or a folder")
        self._folder = os.path.dirname(path) or "." if file else path.rstrip("/") or "/"
        if file is None:
            file = next(filter(None, (storage.stat(f"{self._folder}/{name}") for name in _MANIFESTS)), None)
        self._manifest = Manifest(file, source) if file else None
        self._own_name = (self._folder if is_remote(path) else os.path.abspath(self._folder)).rpartition("/")[2]
        self._places: tuple[str, ...] = (f"{self._folder}/",)
        if self._manifest is not None:
            self.names = self._manifest.names
            self.damage.update(self._manifest.damage)
            sizes = self._probe()
            self.fingerprint = storage.digest(self._manifest.digest, *map(str, sizes))
        else:
            self.names, sizes = self._listed()
            self.fingerprint = storage.digest(*sizes)
        if not len(self.names):
            raise CocaError(
                f"the pictures of {path} have no captions: put a text file of the same name beside each "
                "(cat.jpg, cat.txt), or add captions.jsonl with rows "
                '{"file_name": "cat.jpg", "caption": "a cat"}'
            )
        self.census = Census(len(self.names), None, self.damage)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        """The records; a BadRecord instance where one cannot be used."""
        names = [self.names[index] for index in indices]
        result: list[Any] = []
        for name, picture, rows in zip(names, self._pictures(names), self._rows(indices), strict=True):
            bad = next((thing for thing in (picture, rows) if isinstance(thing, BadRecord)), None)
            try:
                result.append(bad or Record(name, picture, self._captions(rows), self._metadata(name, rows)))
            except BadRecord as error:
                result.append(error)
        return result

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        """What the records say; a BadRecord instance where it cannot be used."""
        result: list[RecordText | BadRecord] = []
        for index, rows in zip(indices, self._rows(indices), strict=True):
            try:
                if isinstance(rows, BadRecord):
                    raise rows
                result.append(RecordText(self._captions(rows), self._metadata(self.names[index], rows)))
            except BadRecord as error:
                result.append(error)
        return result

    def matching(self, selection: Selection) -> np.ndarray:
        """bool [n]: which records the selection excludes by their metadata."""
        found = np.zeros(len(self), bool)
        for start in range(0, len(self), _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, len(self)))
            said = self._rows(some) if self._manifest is not None else [[]] * len(some)
            for index, rows in zip(some, said, strict=True):
                rows = [] if isinstance(rows, BadRecord) else rows
                found[index] = selection.excludes(self._metadata(self.names[index], rows))
        return found

    def key(self, index: int) -> str:
        return self.names[index]

    def name(self, index: int) -> str:
        paths = [f"{place}{self.names[index]}" for place in self._places]
        return next((path for path in paths if storage.stat(path)), f"{self._folder}/{self.names[index]}")

    def _pictures(self, names: Sequence[str]) -> list[bytes | BadRecord]:
        found = bad_records(storage.read_each([f"{self._places[0]}{name}" for name in names]))
        for place in self._places[1:]:
            missing = [i for i, one in enumerate(found) if isinstance(one, BadRecord) and one.cause == "missing file"]
            again = bad_records(storage.read_each([f"{place}{names[i]}" for i in missing]))
            for i, one in zip(missing, again, strict=True):
                found[i] = one
        return found

    def _rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """What is said of each record: its rows of the manifest, or its text file as a row."""
        if self._manifest is not None:
            return self._manifest.rows(indices)
        texts = storage.read_each([_beside(f"{self._folder}/{self.names[index]}") for index in indices])
        return [
            [{}]
            if self._source.label_field and isinstance(text, storage.ReadError)
            else BadRecord("unreadable caption")
            if isinstance(text, storage.ReadError)
            else [{"txt": text}]
            for text in texts
        ]

    def _captions(self, rows: list[Any]) -> tuple[str, ...]:
        if len(rows) == 1:
            return fields.captions(rows[0], self._source)
        found: list[str] = []
        for row in rows:
            try:
                found += fields.captions(row, self._source)
            except BadRecord as error:
                if error.cause != "empty caption":
                    raise
        if not found and not self._source.label_field:
            raise BadRecord("empty caption")
        return tuple(found)

    def _metadata(self, name: str, rows: list[Any]) -> dict[str, Any]:
        pure = PurePosixPath(self._own_name) / name
        each = [fields.metadata(row, () if self._manifest is not None else ("txt",)) for row in rows]
        found = {"stem": pure.stem, "folder": pure.parent.name, **(each[0] if each else {})}
        if len(each) > 1:
            found["rows"] = each
            label = self._source.label_field
            labels = list(dict.fromkeys(row[label] for row in each if isinstance(row.get(label), (str, int))))
            if len(labels) > 1:  # one label a row
                found[label] = labels
        return found

    def _probe(self) -> list[int]:
        """Decides where pictures are looked for first; returns the sizes of some, spread over the manifest."""
        count = len(self.names)
        chosen = np.unique(np.linspace(0, count - 1, min(_PROBES, count)).astype(np.int64)).tolist()
        names = [self.names[i] for i in chosen] if count else []
        places = [f"{self._folder}/", f"{self._folder}/{_INNER}", *self._manifest.folders]
        there = {place: storage.stat_each([place + name for name in names]) for place in places}
        first = [place for place in places if any(there[place])]
        if names and self._manifest.folders and not first:
            raise CocaError(
                f"{self._source.path} names pictures such as {names[0]}, which lie in none of "
                f"{' '.join(places)}: put them into one of these, or say which folder beside the file holds "
                "them, such as data.image_field='photos/{file_name}'"
            )
        self._places = (*first, *(place for place in places[:2] if place not in first))
        return [next((file.size for file in files if file), -1) for files in zip(*there.values(), strict=True)]

    def _listed(self) -> tuple[Strings, list[str]]:
        """All pictures that have a text (with a label_field: all), and what tells them apart."""
        files = storage.list_files(self._folder)
        endings = {f".{ending}" for ending in (*fields.PICTURES, *fields.CLIPS)}
        texts = {file.name: file.size for file in files if file.name.endswith(".txt")}
        pictures = [file for file in files if PurePosixPath(file.name).suffix.lower() in endings]
        if not pictures:
            raise CocaError(
                f"there is no picture below {self._folder}: set --config.data.path to a folder of "
                "pictures (png, jpg, webp, …) or clips (mp4, mkv, webm, …)"
            )
        if not self._source.label_field:
            captioned = [file for file in pictures if _beside(file.name) in texts]
            if len(captioned) < len(pictures):
                self.damage["picture without text"] += len(pictures) - len(captioned)
            pictures = captioned
        sizes = [f"{file.name}:{file.size}:{texts.get(_beside(file.name))}" for file in pictures]
        return Strings.of(file.name for file in pictures), sizes


def _beside(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.txt" if stem and "/" not in ending else f"{name}.txt"
