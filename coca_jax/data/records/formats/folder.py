"""Images or clips in files of their own, each with its captions."""

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.formats.manifest import SUFFIXES
from coca_jax.data.records.formats.manifests import Manifests, open_manifest
from coca_jax.data.records.formats.sidecars import MADE_FIELDS, Sidecars, spread
from coca_jax.data.records.record import BadRecord, Census, Record, RecordText, bad_records, joined
from coca_jax.data.records.selection import Selection
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, is_remote

_TABLES = ("captions.jsonl", "captions.csv", "captions.tsv", "captions.json", "metadata.jsonl", "metadata.csv")
_CAPTIONS = _TABLES[:4]  # the others are those of Hugging Face's ImageFolder
_INNER = "images/"  # where the images of a manifest often lie
_PROBES = 100  # images of a manifest that are looked for when it is opened
_MISSING = "missing file"


class FolderRecords:
    """The images that a manifest names, or all below a folder with a `.txt` file beside each.

    A folder may hold its manifest as captions.jsonl, .csv, .tsv or .json, or, as Hugging Face's ImageFolder does,
    metadata.jsonl or metadata.csv there and in folders below. A row such as
    {"file_name": "a.jpg", "captions": ["…", "…"]} belongs to one image, and several rows may belong to the same one.
    File names are relative to the manifest's folder, to its `images/`, or to where COCO's zips put them (see
    `coco_json`). Metadata has "stem", the file's name without its suffix, and "folder", the name of the folder that
    it lies in; if an image has several rows, the values of the first, and "rows": all of them. With `records = "rows"`
    each row is a record of its own; its key is the image's file, so that all rows of an image are held out together.

    Attributes: see `RecordStore`.
    """

    class_names: tuple[str, ...] | None = None

    def __init__(self, dataset: DatasetConfig, selection: Selection):
        """Lists the images of `dataset.path`, a manifest or a folder, locates their captions and selects a split's.

        Raises:
          CocaError: there is no such folder or file, no image, no caption, or a manifest that cannot be read.
        """
        fields.check_templates(dataset)
        self._dataset, path = dataset, dataset.path
        file = storage.stat(path)
        if file is None and path.lower().endswith(SUFFIXES):
            raise CocaError(f"the file {path} does not exist: set the dataset's path to a manifest or a folder")
        self._folder = os.path.dirname(path) or "." if file else path.rstrip("/") or "/"
        self._top = (self._folder if is_remote(path) else os.path.abspath(self._folder)).rpartition("/")[2]
        self._source = self._opened(file, trains=selection.part == "train")
        self._names = names = self._source.names
        self._places: tuple[str, ...] = (f"{self._folder}/",)
        sizes = self._probe(self._source) if isinstance(self._source, Manifests) else []
        if not len(names):
            raise CocaError(
                f"the images of {path} have no captions: put a text file of the same name beside each "
                "(cat.jpg, cat.txt), or add captions.jsonl with rows "
                '{"file_name": "cat.jpg", "caption": "a cat"}'
                + (self._source.advice if isinstance(self._source, Sidecars) else "")
            )
        usable = self._source.paths.are_filled()
        if selection.without_files or selection.files != ("*",):
            usable &= np.array([selection.has_file(names[i]) for i in range(len(names))])
        met = functools.partial(selection.met, len(names), self._every_metadata)
        chosen, held_out = selection.choose(lambda: names, met, usable)
        self._rows = np.flatnonzero(chosen)
        self.fingerprint = storage.digest(self._source.digest, *map(str, sizes))
        if not chosen.all():
            rows = hashlib.sha256(self._rows.astype("<i8").tobytes()).hexdigest()
            self.fingerprint = storage.digest(self.fingerprint, rows)
        total = int(usable.sum()) or len(names)
        self.census = Census(total, held_out, self._source.damage, self._source.examples)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        numbers = self._rows[np.asarray(indices, np.int64)].tolist()
        rows = self._source.rows(numbers)
        keys = [self._names[number] for number in numbers]
        images = self._images([self._source.paths[number] for number in numbers])
        seconds: list[bytes | BadRecord] = [b""] * len(numbers)
        if self._dataset.second_image_field:
            seconds = self._images(list(map(self._second_path, numbers, rows)))
        return [joined(*parts) for parts in zip(keys, images, self._texts(numbers, rows), seconds, strict=True)]

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        numbers = self._rows[np.asarray(indices, np.int64)].tolist()
        return self._texts(numbers, self._source.rows(numbers))

    def _texts(self, numbers: Sequence[int], each: Sequence[list[Any] | BadRecord]) -> list[RecordText | BadRecord]:
        result: list[RecordText | BadRecord] = []
        for number, rows in zip(numbers, each, strict=True):
            try:
                if isinstance(rows, BadRecord):
                    raise rows
                result.append(RecordText(self._captions(rows), self._metadata(number, rows)))
            except BadRecord as error:
                result.append(error)
        return result

    def key(self, index: int) -> str:
        return self._names[int(self._rows[index])]

    def name(self, index: int) -> str:
        number = int(self._rows[index])
        paths = [f"{place}{self._source.paths[number]}" for place in self._places]
        path = next(filter(storage.stat, paths), f"{self._folder}/{self.key(index)}")
        return f"{path} (row {number + 1})" if self._dataset.records == "rows" else path

    def _every_metadata(self, some: range) -> list[dict[str, Any]]:
        """The metadata of some of all images, whether they are selected or not; texts are left unread."""
        rows = self._source.rows(some) if isinstance(self._source, Manifests) else [[]] * len(some)
        pairs = zip(some, rows, strict=True)
        return [self._metadata(number, [] if isinstance(row, BadRecord) else row) for number, row in pairs]

    def _opened(self, file: File | None, trains: bool) -> Manifests | Sidecars:
        dataset = self._dataset
        if file is None:
            file = next(filter(None, (storage.stat(f"{self._folder}/{name}") for name in _CAPTIONS)), None)
        if file is not None:
            return Manifests([("", open_manifest(file, dataset, trains))])
        listed = storage.list_files(self._folder)
        others = [one.name for one in listed if "/" not in one.name and one.name.lower().endswith(SUFFIXES)]
        sidecars = Sidecars(self._folder, listed, dataset, others)
        tables: dict[str, File] = {}  # one a folder
        for name in reversed(_TABLES):
            tables |= {one.name[: -len(name)]: one for one in listed if one.name.rpartition("/")[2] == name}
        if tables and (dataset.label_field not in MADE_FIELDS if dataset.label_field else not len(sidecars.names)):
            return Manifests([(prefix, open_manifest(one, dataset, trains)) for prefix, one in sorted(tables.items())])
        if dataset.records == "rows" or dataset.second_image_field:
            raise CocaError(
                f"{dataset.path} has no rows for records=rows or second_image_field: set the dataset's path to a manifest "
                f"({', '.join(SUFFIXES)})"
            )
        sidecars.check()
        return sidecars

    def _images(self, paths: Sequence[str | BadRecord]) -> list[bytes | BadRecord]:
        """The contents of files below any of the places, in place of each path that there is."""
        images = [path if isinstance(path, BadRecord) else BadRecord(_MISSING) for path in paths]
        result: list[bytes | BadRecord] = list(images)
        for place in self._places:
            missing = [i for i, one in enumerate(result) if isinstance(one, BadRecord) and one.cause == _MISSING]
            again = bad_records(storage.read_each([f"{place}{paths[i]}" for i in missing]))
            for i, one in zip(missing, again, strict=True):
                result[i] = one
        return result

    def _second_path(self, number: int, rows: list[Any] | BadRecord) -> str | BadRecord:
        """The file of a record's second image, as `paths` are; a BadRecord if it has none, or one in another place."""
        if isinstance(rows, BadRecord) or not isinstance(self._source, Manifests):
            return BadRecord("unreadable row")
        names = (fields.file_name(row, self._dataset.second_image_field) for row in rows)
        name = next(filter(None, names), None)
        path = self._source.relative(number, name) if name else None
        return path or BadRecord(
            "second image outside the manifest's folder" if name else "record without second image"
        )

    def _captions(self, rows: list[Any]) -> tuple[str, ...]:
        captions: list[str] = []
        for row in rows:
            try:
                captions += fields.captions(row, self._dataset)
            except BadRecord as error:
                if error.cause != "empty caption":
                    raise
        if not captions and not self._dataset.label_field:
            raise BadRecord("empty caption")
        return tuple(captions)

    def _metadata(self, number: int, rows: list[Any]) -> dict[str, Any]:
        path = PurePosixPath(self._top) / self._names[number]
        each = [fields.metadata(row, () if isinstance(self._source, Manifests) else ("txt",)) for row in rows]
        result = {"stem": path.stem, "folder": path.parent.name, **(each[0] if each else {})}
        if len(each) > 1:
            result["rows"] = each
            label = self._dataset.label_field
            labels = list(dict.fromkeys(row[label] for row in each if isinstance(row.get(label), (str, int))))
            if len(labels) > 1:  # one label a row
                result[label] = labels
        return result

    def _probe(self, manifests: Manifests) -> list[int]:
        """Decides where images are looked for first; returns the sizes of some, spread over the manifest."""
        names = spread(manifests.paths, _PROBES)
        places = list(dict.fromkeys([f"{self._folder}/", f"{self._folder}/{_INNER}", *manifests.folders]))
        there = {place: storage.stat_each([place + name for name in names]) for place in places}
        first = [place for place in places if any(there[place])]
        if names and manifests.folders and not first:
            raise CocaError(
                f"{self._dataset.path} names images such as {names[0]}, which lie in none of "
                f"{' '.join(places)}: put them into one of these, or name the folder beside the file that holds "
                "them, such as image_field='photos/{file_name}'"
            )
        self._places = (*first, *(place for place in places[:2] if place not in first))
        return [next((file.size for file in files if file), -1) for files in zip(*there.values(), strict=True)]
