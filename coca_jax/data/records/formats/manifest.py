"""Manifests: files whose rows name images and hold their captions. Rows are located once and parsed on demand.

Ten million rows as dicts would take gigabytes, which every process that a run forks would copy, object by object. Here
a row is two numbers: its offset and its size.
"""

import array
import hashlib
import os
import posixpath
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_index
from coca_jax.data.records.formats import coco_json
from coca_jax.data.records.formats.text_table import SeparatedValues, Utf8, json_lines
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, is_remote

SUFFIXES = (".jsonl", ".csv", ".tsv", ".json")
MADE_FIELDS = ("stem", "folder")  # of a record's metadata, made from the name of its file
_LARGEST = 2**36  # bytes of a manifest
_LONGEST_LINE = 100_000  # bytes of the first line
_DRIVE = re.compile(r"[A-Za-z]:/")  # of a Windows path
_WORTH_KEEPING = 4 * 1024 * 1024  # bytes of a manifest whose index is kept: others are read as fast


class Manifest:
    """The rows of a .csv or .tsv (whose first line names the columns), a .jsonl, or a .json (see `coco_json`).

    Attributes:
      names: the image files, in the order in which they are first named.
      digest: of the contents.
      damage: losses by cause.
      folders: where the images may lie, apart from the usual places.
    """

    def __init__(self, file: File, dataset: DatasetConfig):
        """Locates the rows; CocaError if some cannot be read, leave the folder, or all lack a configured field."""
        self._file, kind = file, PurePosixPath(file.path).suffix.lower()
        start = _beginning(file)
        self._style = _style(start.split(b"\n")[0], file, dataset) if kind in (".csv", ".tsv") else None
        self._is_object = kind == ".json" and start.lstrip().startswith(b"{")
        self.folders = coco_json.folders(file.path) if self._is_object else []
        name = "rows-" + storage.digest("3", dataset.image_field, *dataset.text_fields, dataset.label_field)
        scan = _Scanner(file, dataset, self._style, self.folders).index
        index = shard_index.index_of(file, name, scan) if file.size >= _WORTH_KEEPING else scan(file)
        assert index.keys is not None and index.ends is not None
        self.names, self.digest, self.damage = index.keys, index.digest, index.damage
        self._spans, self._ends = index.spans, index.ends

    def __len__(self) -> int:
        return len(self._ends)

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """All rows of each image; a BadRecord if one can no longer be read."""
        starts = [int(self._ends[index - 1]) if index else 0 for index in indices]
        spans = [self._spans[start : int(self._ends[i])].tolist() for i, start in zip(indices, starts, strict=True)]
        parts = iter(bad_records(storage.read_spans(self._file.path, [span for several in spans for span in several])))
        result: list[list[Any] | BadRecord] = []
        for several in spans:
            data = [next(parts) for _ in several]
            try:
                rows = [self._parsed(one) for one in data]
                result.append(coco_json.together(rows) if self._is_object else rows)
            except BadRecord as error:
                result.append(error)
        return result

    def _parsed(self, data: bytes | BadRecord) -> Any:
        if isinstance(data, BadRecord):
            raise data
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRecord(fields.NOT_UTF8) from error
        row = self._style.parse(text) if self._style else fields.parse_json(text)
        if not isinstance(row, (dict, list)):
            raise BadRecord("unreadable row")  # the file has changed since
        return row


class Manifests:
    """The rows of one manifest, or of several in folders below one.

    Attributes: as of `Manifest`, names relative to the folder above all; examples: a file by cause, where known.
    """

    def __init__(self, parts: Sequence[tuple[str, Manifest]]):
        """Args: parts: the folder of each manifest, "" or with a slash at its end."""
        self._parts = [manifest for _, manifest in parts]
        self._ends = np.cumsum([len(manifest) for manifest in self._parts])
        self.damage, self.examples = Counter[str](), dict[str, str]()
        for manifest in self._parts:
            self.damage.update(manifest.damage)
        self.folders: list[str] = []
        if [folder for folder, _ in parts] == [""]:
            alone = self._parts[0]
            self.folders, self.names, self.digest = alone.folders, alone.names, alone.digest
        else:
            self.names = Strings.of(f"{folder}{one.names[i]}" for folder, one in parts for i in range(len(one)))
            self.digest = storage.digest(*(f"{folder}:{one.digest}" for folder, one in parts))

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """All rows of each image; a BadRecord if one can no longer be read."""
        numbers = np.searchsorted(self._ends, np.asarray(indices, np.int64), side="right")
        result: list[Any] = [None] * len(indices)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number).tolist()
            first = int(self._ends[number - 1]) if number else 0
            rows = self._parts[number].rows([indices[place] - first for place in places])
            for place, row in zip(places, rows, strict=True):
                result[place] = row
        return result


class ImageFiles:
    """The files that a table may name: those below its folder, or below others that it is known to speak of."""

    def __init__(self, path: str, others: Sequence[str] = ()):
        self.folder = os.path.dirname(path) or "."
        roots = [place.rstrip("/") for place in (self.folder, *others)]
        if not is_remote(path):
            roots = [path for root in roots for path in (os.path.abspath(root), os.path.realpath(root))]
        self._roots = tuple(f"{root.rstrip('/')}/" for root in dict.fromkeys(roots))

    def relative(self, name: str) -> str | None:
        """The name relative to the folder; None if it leaves it."""
        path = name.replace("\\", "/")
        if path.startswith("file:///"):
            path = urllib.parse.unquote(path.removeprefix("file://"))
        path = path if "://" in path else posixpath.normpath(path)
        path = path.removeprefix(next((root for root in self._roots if path.startswith(root)), ""))
        is_outside = path.startswith("/") or "://" in path or ".." in path.split("/") or "\0" in path
        return None if is_outside or _DRIVE.match(path) else path


def _beginning(file: File) -> bytes:
    try:
        start = storage.read_range(file.path, 0, _LONGEST_LINE)
    except storage.ReadError as error:
        raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CocaError(f"{file.path} is UTF-16: save it as UTF-8")
    return start.removeprefix(b"\xef\xbb\xbf")


def _style(first_line: bytes, file: File, dataset: DatasetConfig) -> SeparatedValues:
    """How the file writes its rows; raises CocaError unless its columns hold the configured fields."""
    where = f"the first line of {file.path}, which names the columns,"

    def problem(columns: Sequence[str]) -> str:
        row = dict.fromkeys(columns, "0")
        if fields.file_name(row, dataset) is None:
            return fields.without_image(where, row, dataset)
        return fields.FieldCheck(dataset, MADE_FIELDS).add(row).problem(where)

    naming = fields.names_in(dataset.image_field) if dataset.image_field else fields.FILE_FIELDS
    return SeparatedValues.of(first_line, where, naming, problem)


class _Scanner:
    """Makes the index of a manifest: where the rows of each image lie; they need not be neighbours."""

    def __init__(self, file: File, dataset: DatasetConfig, style: SeparatedValues | None, places: Sequence[str]):
        self._file, self._dataset, self._style = file, dataset, style
        self._utf8, self._contents, self._damage = Utf8(), hashlib.sha256(), Counter[str]()
        self._check = fields.FieldCheck(dataset, MADE_FIELDS)
        self._images = ImageFiles(file.path, places)

    def index(self, file: File) -> Index:
        places = array.array("q")

        def names() -> Iterator[str]:
            for offset, size, name in self._json() if file.path.lower().endswith(".json") else self._lines():
                places.extend((offset, size))
                yield name

        try:
            strings = Strings.of(names())
        except (OSError, storage.ReadError) as error:
            raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
        problem = self._utf8.problem() or (self._check.problem(file.path) if len(strings) else "")
        if problem:
            raise CocaError(problem)
        return _grouped(np.array(places, np.int64).reshape(-1, 2), strings, self._damage, self._contents.hexdigest())

    def _lines(self) -> Iterator[tuple[int, int, str]]:
        read = self._style.rows if self._style else json_lines
        for offset, size, row, where in read(self._file, self._utf8, self._contents.update):
            yield offset, size, self._name(self._add(row), where)

    def _json(self) -> Iterator[tuple[int, int, str]]:
        data = storage.read(self._file.path, largest=_LARGEST)
        self._contents.update(data)
        text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")  # one character a byte: places in it are offsets
        moved = len(data) - len(text)

        def parsed(span: tuple[int, int], where: str) -> Any:
            return self._add(fields.parse_json(self._utf8.decode(data[moved + span[0] : moved + span[1]], where)))

        for start, end, name in coco_json.rows(text, self._file.path, self._dataset, parsed, self._name, self._damage):
            yield moved + start, end - start, name

    def _add(self, row: Any) -> Any:
        if isinstance(row, (dict, list)):
            self._check.add(row)
        return row

    def _name(self, row: Any, where: str) -> str:
        """The row's image file, relative to the manifest's folder, which it must not leave."""
        if isinstance(row, list) and not self._dataset.image_field:
            raise CocaError(
                f"{where} is a list: set image_field to the place of its image, such as image_field='images/{{2}}.png'"
            )
        if not isinstance(row, (dict, list)):
            raise CocaError(
                f'{where} is not a row such as {{"file_name": "cat.jpg", "caption": "a cat"}}: correct or remove it'
            )
        name = fields.file_name(row, self._dataset)
        if name is None:
            raise CocaError(fields.without_image(where, fields.metadata(row), self._dataset))
        path = self._images.relative(name)
        if path is None:
            raise CocaError(f"{where} names the file {name!r}: it must lie below the folder of its manifest")
        return path


def _grouped(spans: np.ndarray, names: Strings, damage: Counter[str], digest: str) -> Index:
    """The index with all rows of a name together, in the order in which names first occur."""
    # By 64-bit hashes, in arrays: ten million names as keys of a dict would take gigabytes.
    _, first, group = np.unique(names.hashes(), return_index=True, return_inverse=True)
    if len(first) == len(names):
        return Index(spans, names, np.arange(1, len(names) + 1), damage, digest)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    owner = rank[group]
    distinct = Strings.of(names[i] for i in first[order].tolist())
    ends = np.cumsum(np.bincount(owner, minlength=len(order))).astype(np.int64)
    return Index(spans[np.argsort(owner, kind="stable")], distinct, ends, damage, digest)
