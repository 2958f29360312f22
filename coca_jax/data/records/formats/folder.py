"""Images or clips in files of their own, each with its captions."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_files
from coca_jax.data.records.formats.manifest import MADE_FIELDS, SUFFIXES, Manifest, Manifests
from coca_jax.data.records.formats.text_table import Utf8
from coca_jax.data.records.record import BadRecord, Census, Record, RecordText, bad_records, joined
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, is_remote

_TABLES = ("captions.jsonl", "captions.csv", "captions.tsv", "captions.json", "metadata.jsonl", "metadata.csv")
_CAPTIONS = _TABLES[:4]  # the others are those of Hugging Face's ImageFolder
_INNER = "images/"  # where the images of a manifest often lie
_PROBES = 100  # images of a manifest that are looked for when it is opened
_TEXT_PROBES = 20  # text files whose encoding is checked when a folder is opened


class FolderRecords:
    """The images that a manifest names, or all below a folder with a `.txt` file beside each.

    A folder may hold its manifest as captions.jsonl, .csv, .tsv or .json, or, as Hugging Face's ImageFolder does,
    metadata.jsonl or metadata.csv there and in folders below. A row such as
    {"file_name": "a.jpg", "captions": ["…", "…"]} belongs to one image, and several rows may belong to the same one.
    File names are relative to the manifest's folder, to its `images/`, or to where COCO's zips put them (see
    `coco_json`). Metadata has "stem", the file's name without its suffix, and "folder", the name of the folder that
    it lies in; if an image has several rows, the values of the first, and "rows": all of them.

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
        self._source = self._opened(file)
        self._names = names = self._source.names
        self._places: tuple[str, ...] = (f"{self._folder}/",)
        sizes = self._probe(self._source) if isinstance(self._source, Manifests) else []
        if not len(names):
            raise CocaError(
                f"the images of {path} have no captions: put a text file of the same name beside each "
                "(cat.jpg, cat.txt), or add captions.jsonl with rows "
                '{"file_name": "cat.jpg", "caption": "a cat"}'
            )
        usable = np.ones(len(names), bool)
        if selection.without_files or selection.files != ("*",):
            usable = np.array([selection.has_file(names[i]) for i in range(len(names))])
        excluded = functools.partial(selection.excluded, len(names), self._every_metadata)
        chosen, held_out = selection.choose(lambda: names, excluded, usable)
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
        names = [self.key(index) for index in indices]
        images = self._images(names)
        return [joined(*parts) for parts in zip(names, images, self.read_texts(indices), strict=True)]

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        numbers = self._rows[np.asarray(indices, np.int64)].tolist()
        result: list[RecordText | BadRecord] = []
        for number, rows in zip(numbers, self._source.rows(numbers), strict=True):
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
        paths = [f"{place}{self.key(index)}" for place in self._places]
        return next(filter(storage.stat, paths), f"{self._folder}/{self.key(index)}")

    def _every_metadata(self, some: range) -> list[dict[str, Any]]:
        """The metadata of some of all images, whether they are selected or not; texts are left unread."""
        rows = self._source.rows(some) if isinstance(self._source, Manifests) else [[]] * len(some)
        pairs = zip(some, rows, strict=True)
        return [self._metadata(number, [] if isinstance(row, BadRecord) else row) for number, row in pairs]

    def _opened(self, file: File | None) -> "Manifests | _Sidecars":
        dataset = self._dataset
        if file is None:
            file = next(filter(None, (storage.stat(f"{self._folder}/{name}") for name in _CAPTIONS)), None)
        if file is not None:
            return Manifests([("", Manifest(file, dataset))])
        listed = storage.list_files(self._folder)
        sidecars = _Sidecars(self._folder, listed, dataset)
        tables: dict[str, File] = {}  # one a folder
        for name in reversed(_TABLES):
            tables |= {one.name[: -len(name)]: one for one in listed if one.name.rpartition("/")[2] == name}
        if tables and (dataset.label_field not in MADE_FIELDS if dataset.label_field else not len(sidecars.names)):
            return Manifests([(prefix, Manifest(one, dataset)) for prefix, one in sorted(tables.items())])
        sidecars.check()
        return sidecars

    def _images(self, names: Sequence[str]) -> list[bytes | BadRecord]:
        images: list[bytes | BadRecord] = [BadRecord("missing file")] * len(names)
        for place in self._places:
            missing = [i for i, one in enumerate(images) if isinstance(one, BadRecord) and one.cause == "missing file"]
            again = bad_records(storage.read_each([f"{place}{names[i]}" for i in missing]))
            for i, one in zip(missing, again, strict=True):
                images[i] = one
        return images

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
        names = _spread(manifests.names, _PROBES)
        places = [f"{self._folder}/", f"{self._folder}/{_INNER}", *manifests.folders]
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


class _Sidecars:
    """The images below a folder that have a text file beside them (with a label_field: all images).

    Attributes: as of `Manifests`.
    """

    def __init__(self, folder: str, files: Sequence[File], dataset: DatasetConfig):
        """Raises CocaError if there is no image."""
        self._folder, self._dataset = folder, dataset
        self.damage, self.examples = Counter[str](), dict[str, str]()
        texts = {file.name: file.size for file in files if file.name.endswith(".txt")}
        images = []
        stored = [file for file in files if fields.is_media_file(file.name)]
        stored = stored or [file for file in files if fields.suffix_of(file.name) == fields.TOKEN_SUFFIX]
        for file in stored:
            if file.size < 0:
                self._lose("link to nothing", file)
            elif dataset.label_field or _beside(file.name) in texts:
                images.append(file)
            else:
                self._lose("image without text", file)
        unread = [file for file in files if fields.suffix_of(file.name) in fields.UNREAD_SUFFIXES]
        for file in unread:
            self._lose(fields.unread_image(file.name), file)
        if not images and not self.damage["image without text"]:
            raise CocaError(_without_image(folder, files))
        if images and not dataset.label_field:
            beside = {_beside(file.name) for file in (*stored, *unread)}
            for file in files:
                if file.name in texts and file.name not in beside:
                    self._lose("text without image", file)
        self.names = Strings.of(file.name for file in images)
        self.digest = storage.digest(*(f"{file.name}:{file.size}:{texts.get(_beside(file.name))}" for file in images))

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """The text of each image as a row; a BadRecord if it cannot be read."""
        texts = storage.read_each([_beside(f"{self._folder}/{self.names[index]}") for index in indices])
        unread: list[Any] | BadRecord = [{}] if self._dataset.label_field else BadRecord("unreadable caption")
        return [unread if isinstance(text, storage.ReadError) else [{"txt": text}] for text in texts]

    def check(self) -> None:
        """Raises CocaError if a configured field does not exist, or the texts have another encoding than UTF-8."""
        problem = fields.FieldCheck(self._dataset, MADE_FIELDS).add({"txt": ""}).problem(f"the folder {self._folder}")
        if not problem and len(self.names) and not self._dataset.label_field:
            utf8 = Utf8()
            paths = [_beside(f"{self._folder}/{name}") for name in _spread(self.names, _TEXT_PROBES)]
            for path, text in zip(paths, storage.read_each(paths), strict=True):
                utf8.decode(b"" if isinstance(text, storage.ReadError) else text, path)
            problem = utf8.problem()
        if problem:
            raise CocaError(problem)

    def _lose(self, cause: str, file: File) -> None:
        self.damage[cause] += 1
        self.examples.setdefault(cause, file.path)


def _spread(names: Strings, count: int) -> list[str]:
    """Some of the names, evenly spread."""
    some = np.linspace(0, len(names) - 1, min(count, len(names))).astype(np.int64)
    return [names[i] for i in np.unique(some).tolist()]


def _without_image(folder: str, files: Sequence[File]) -> str:
    """The error for a folder of files of which none is an image that is read."""
    kinds = [f".{fields.suffix_of(file.name)}" for file in files if "." in file.name]
    there = [kind for kind, _ in Counter(kinds).most_common(5)]
    unread = [kind for kind in there if kind[1:] in fields.UNREAD_SUFFIXES]
    other = shard_files.format_of(file.name for file in files)
    if other:
        advice = f"set format={other}"
    elif any(file.size < 0 for file in files):
        advice = "mend the links to files that do not exist"
    elif unread:
        advice = f"{' and '.join(unread)} files are not supported, so convert them to png or jpg"
    else:
        advice = "set the dataset's path to a folder of images (png, jpg, webp, …) or clips (mp4, mkv, webm, …)"
    return f"there is no image below {folder} (there is {', '.join(there) or 'nothing'}): {advice}"


def _beside(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.txt" if stem and "/" not in suffix else f"{name}.txt"
