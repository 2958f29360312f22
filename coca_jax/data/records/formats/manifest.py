"""Manifests: files whose rows name images and hold their captions. Rows are located once and parsed on demand.

Ten million rows as dicts would take gigabytes, which every process that a run forks would copy, object by object. Here
a row is two numbers: its offset and its size.
"""

import array
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig, differences
from coca_jax.data.records import fields, shard_index
from coca_jax.data.records.formats import coco_json, kinetics, nlvr2
from coca_jax.data.records.formats.image_files import ImageFiles
from coca_jax.data.records.formats.sidecars import MADE_FIELDS
from coca_jax.data.records.formats.text_table import SeparatedValues, Utf8, json_lines
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

SUFFIXES = (".jsonl", ".csv", ".tsv", ".json")
_LARGEST = 2**36  # bytes of a manifest
_LONGEST_LINE = 100_000  # bytes of the first line
_Place = tuple[tuple[tuple[int, int], ...], str]  # offset and size of each part of a row, and its image file
_WORTH_KEEPING = 4 * 1024 * 1024  # bytes of a manifest whose index is kept: others are read as fast


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How a manifest is written.

    Attributes:
      style: of a .csv or .tsv.
      has_lines: one row a line, as in a table, .jsonl, and NLVR2's .json.
      is_object: a JSON object with lists (see `coco_json`).
      made: returns a row with the fields that its dataset leaves to be made.
    """

    style: SeparatedValues | None
    has_lines: bool
    is_object: bool
    made: Callable[[Any], Any]

    @classmethod
    def of(cls, file: File, start: bytes, dataset: DatasetConfig) -> "_Kind":
        """The kind of the file that begins with `start`; CocaError if a table's columns lack a configured field."""
        suffix = PurePosixPath(file.path).suffix.lower()
        if suffix in (".csv", ".tsv"):
            style = _style(start.split(b"\n")[0], file, dataset)
            made = kinetics.with_clip if kinetics.is_list(style.columns) and not dataset.image_field else _unchanged
            return cls(style, True, False, made)
        if suffix == ".jsonl" or _has_objects(start):
            return cls(None, True, False, nlvr2.with_images)
        return cls(None, False, start.lstrip().startswith(b"{"), _unchanged)


class Manifest:
    """The rows of a .csv or .tsv (whose first line names the columns), a .jsonl, or a .json (see `coco_json`).

    Attributes:
      names: the image file of each record: all rows of an image, in the order in which they are first named; or, with
        `records = "rows"`, one row each.
      paths: where these files are below their folder, "" if they are known to be missing.
      digest: of the contents.
      damage: losses by cause.
      examples: a lost file by cause, where known.
      files: the files that rows may name.
      folders: where the images may lie, apart from the usual places.
    """

    def __init__(self, file: File, dataset: DatasetConfig):
        """Locates the rows; CocaError if some cannot be read, leave the folder, or all lack a configured field."""
        self._file, self._kind = file, _Kind.of(file, beginning(file), dataset)
        self.folders = coco_json.folders(file.path) if self._kind.is_object else []
        changed = differences(dataset)
        later = [f"{key}={changed[key]}" for key in ("records", "second_image_field") if key in changed]
        name = "rows-" + storage.digest("3", dataset.image_field, *dataset.text_fields, dataset.label_field, *later)
        scan = _Scanner(file, dataset, self._kind, self.folders).index
        index = shard_index.index_of(file, name, scan) if file.size >= _WORTH_KEEPING else scan(file)
        assert index.keys is not None and index.ends is not None
        self.names, self.digest, self.damage = index.keys, index.digest, dict(index.damage)
        self._spans, self._ends = index.spans, index.ends
        self.paths, self.examples = self.names, dict[str, str]()
        if self._kind.made is kinetics.with_clip:
            folder, self.paths = kinetics.clips_on_disk(self.names, file.path)
            self.folders = [f"{folder}/"]
            missing = np.flatnonzero(~self.paths.are_filled())
            if len(missing):
                self.damage[kinetics.NOT_THERE] = len(missing)
                self.examples[kinetics.NOT_THERE] = self.names[int(missing[0])]
        self.files = ImageFiles(file.path, self.folders)

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
                result.append(coco_json.together(rows) if self._kind.is_object else rows)
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
        row = self._kind.style.parse(text) if self._kind.style else fields.parse_json(text)
        if not isinstance(row, (dict, list)):
            raise BadRecord("unreadable row")  # the file has changed since
        return self._kind.made(row)


def beginning(file: File) -> bytes:
    """The first bytes of a manifest, without a byte order mark; CocaError if it cannot be read, or is not in UTF-8."""
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
        row: Any = dict.fromkeys(columns, "0")
        row = kinetics.with_clip(row) if kinetics.is_list(columns) else row
        if fields.file_name(row, dataset.image_field) is None:
            return fields.without_image(where, row, dataset)
        return fields.FieldCheck(dataset, MADE_FIELDS).add(row).problem(where)

    naming = fields.names_in(dataset.image_field) if dataset.image_field else fields.FILE_FIELDS
    return SeparatedValues.of(first_line, where, naming, problem)


def _has_objects(start: bytes) -> bool:
    """Whether the beginning of a file is of JSON Lines: a whole object, and another one on the line below."""
    first, _, rest = start.lstrip().partition(b"\n")
    return rest.lstrip().startswith(b"{") and isinstance(fields.parse_json(first.decode("utf-8", "replace")), dict)


def _unchanged(row: Any) -> Any:
    return row


class _Scanner:
    """Makes the index of a manifest: where the rows of each image lie; they need not be neighbours."""

    def __init__(self, file: File, dataset: DatasetConfig, kind: _Kind, places: Sequence[str]):
        self._file, self._dataset, self._kind = file, dataset, kind
        self._utf8, self._contents, self._damage = Utf8(), hashlib.sha256(), Counter[str]()
        self._check = fields.FieldCheck(dataset, MADE_FIELDS)
        self._images = ImageFiles(file.path, places)

    def index(self, file: File) -> Index:
        places, ends = array.array("q"), array.array("q")

        def names() -> Iterator[str]:
            for spans, name in self._lines() if self._kind.has_lines else self._json():
                for span in spans:
                    places.extend(span)
                ends.append(len(places) // 2)
                yield name

        try:
            strings = Strings.of(names())
        except (OSError, storage.ReadError) as error:
            raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
        problem = self._utf8.problem() or (self._check.problem(file.path) if len(strings) else "")
        if problem:
            raise CocaError(problem)
        spans, digest = np.array(places, np.int64).reshape(-1, 2), self._contents.hexdigest()
        if self._dataset.records == "rows":
            return Index(spans, strings, np.array(ends, np.int64), self._damage, digest)
        return _grouped(spans, strings, self._damage, digest)

    def _lines(self) -> Iterator[_Place]:
        read = self._kind.style.rows if self._kind.style else json_lines
        for offset, size, row, where in read(self._file, self._utf8, self._contents.update):
            row = self._kind.made(row)
            yield ((offset, size),), self._name(self._add(row), where)

    def _json(self) -> Iterator[_Place]:
        data = storage.read(self._file.path, largest=_LARGEST)
        self._contents.update(data)
        text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")  # one character a byte: places in it are offsets
        moved = len(data) - len(text)

        def parsed(span: coco_json.Span, where: str) -> Any:
            return self._add(fields.parse_json(self._utf8.decode(data[moved + span[0] : moved + span[1]], where)))

        for spans, name in coco_json.rows(text, self._file.path, self._dataset, parsed, self._name, self._damage):
            yield tuple((moved + start, end - start) for start, end in spans), name

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
        name = fields.file_name(row, self._dataset.image_field)
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
