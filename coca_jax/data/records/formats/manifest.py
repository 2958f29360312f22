"""Manifests: files whose rows name pictures and say something of each. Rows are found once and parsed when asked for.

Ten million rows as dicts would take gigabytes, which every process that a run forks would copy, object by object. Here
a row is two numbers, where it starts and how long it is.
"""

import array
import csv
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_index
from coca_jax.data.records.formats import coco_json as annotations
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

SUFFIXES = (".jsonl", ".csv", ".json")
_LARGEST = 2**36  # bytes of a manifest
_WORTH_KEEPING = 4 * 1024 * 1024  # bytes of a manifest whose index is kept: others are read as fast
_SPACE = re.compile(r"\s*")
_Row = tuple[int, int, str, str]  # offset, size, the picture's file, where a person finds it


class Manifest:
    """The rows of a .jsonl, a .csv (its first line names the columns) or a .json: a list of objects or of lists, COCO's
    annotations or Karpathy's splits (see `annotations`).

    Attributes:
      names: the pictures' files, in the order in which they are first named.
      digest: of the contents.
      damage: losses by cause.
      folders: where the pictures may lie, apart from the usual places.
    """

    def __init__(self, file: File, source: DatasetConfig):
        """Finds the rows.

        Raises:
          CocaError: the file cannot be understood, or names a picture outside its folder.
        """
        self._file, self._columns = file, []
        self._is_object = file.path.endswith(".json") and _is_object(file)
        scan = functools.partial(_scan, source=source)
        kind = "rows-" + storage.digest(source.image_field, *source.text_fields, source.label_field)
        found = shard_index.index_of(file, kind, scan, keep=file.size >= _WORTH_KEEPING)
        self.names, self.digest, self.damage = found.keys, found.digest, found.damage
        self.folders = annotations.folders(file.path) if self._is_object else []
        self._spans, self._ends = found.spans, found.ends
        if file.path.endswith(".csv"):
            self._columns = _columns(file)

    def __len__(self) -> int:
        return len(self._ends)

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """All rows of each picture; a BadRecord where one cannot be read any more."""
        starts = [int(self._ends[index - 1]) if index else 0 for index in indices]
        counts = [int(self._ends[index]) - start for index, start in zip(indices, starts, strict=True)]
        spans = [self._spans[start : start + count].tolist() for start, count in zip(starts, counts, strict=True)]
        read = iter(bad_records(storage.read_spans(self._file.path, [span for several in spans for span in several])))
        result: list[list[Any] | BadRecord] = []
        for several in spans:
            parts = [next(read) for _ in several]
            try:
                result.append(self._together([self._parsed(part) for part in parts]))
            except BadRecord as error:
                result.append(error)
        return result

    def _together(self, rows: list[Any]) -> list[Any]:
        """An annotation of COCO's says what its picture's row says, too."""
        if not self._is_object or len(rows) == 1:
            return rows
        if not all(isinstance(row, dict) for row in rows):
            raise BadRecord("unreadable row")
        if "image_id" in rows[0] or "image_id" not in rows[-1]:  # several rows of a file without annotations
            return rows
        return [{**row, **rows[0]} for row in rows[1:]]

    def _parsed(self, data: bytes | BadRecord) -> Any:
        if isinstance(data, BadRecord):
            raise data
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRecord("caption is not UTF-8") from error
        if self._columns:
            rows = list(csv.reader(text.splitlines(keepends=True)))
            row = dict(zip(self._columns, rows[0], strict=True)) if rows else None
        else:
            row = fields.parse_json(text)
        if not isinstance(row, (dict, list)):
            raise BadRecord("unreadable row")  # the file has changed since
        return row


def _scan(file: File, source: DatasetConfig) -> Index:
    """Where the rows of each picture lie; rows of one picture need not be neighbours."""
    places, contents, damage = array.array("q"), hashlib.sha256(), Counter()
    readers = {
        ".jsonl": lambda: _jsonl(file, source, contents),
        ".csv": lambda: _csv(file, source, contents),
        ".json": lambda: _json(file, source, contents, damage),
    }

    def named() -> Iterator[str]:
        for offset, size, name, where in readers[PurePosixPath(file.path).suffix]():
            places.extend((offset, size))
            yield _placed(name, where)

    try:
        names = Strings.of(named())
    except (OSError, storage.ReadError) as error:
        raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
    spans = np.array(places, np.int64).reshape(-1, 2)
    # By 64-bit hashes, in arrays: ten million names as keys of a dict would take gigabytes.
    _, first, group = np.unique(names.hashes(), return_index=True, return_inverse=True)
    if len(first) == len(names):
        return Index(spans, names, np.arange(1, len(names) + 1), damage, contents.hexdigest())
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    owner = rank[group]
    kept = Strings.of(names[i] for i in first[order].tolist())
    ends = np.cumsum(np.bincount(owner, minlength=len(order))).astype(np.int64)
    return Index(spans[np.argsort(owner, kind="stable")], kept, ends, damage, contents.hexdigest())


def _file_name(row: Any, source: DatasetConfig, where: str) -> str:
    if fields.is_template(source.image_field):
        names = fields.fill(source.image_field, row)
        name = names[0] if names else None
    elif source.image_field or isinstance(row, dict):
        wanted = (source.image_field,) if source.image_field else fields.FILE_FIELDS
        name = next((found for field in wanted if isinstance(found := fields.lookup(row, field), str) and found), None)
    else:
        raise CocaError(
            f"{where} is a list: say where it names its picture, such as data.image_field='images/{{2}}.png'"
        )
    if name is None:
        what = f" with {source.image_field!r}" if source.image_field else ""
        raise CocaError(
            f'{where} is not a row such as {{"file_name": "cat.jpg", "caption": "a cat"}}{what}: mend or remove it'
        )
    return name


def _placed(name: str, where: str) -> str:
    """The file's path relative to the folder, which it must not leave."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name or "\0" in name:
        raise CocaError(f"{where} names the file {name!r}: it must lie below the folder of its manifest")
    return str(pure)


def _jsonl(file: File, source: DatasetConfig, contents: Any) -> Iterator[_Row]:
    place = 0
    with storage.open_file(file) as data:
        for number, line in enumerate(data, 1):
            contents.update(line)
            if line.strip() and line.strip() != b"\xef\xbb\xbf":
                where = f"line {number} of {file.path}"
                # Bad UTF-8 makes this record bad, not the whole manifest.
                row = _row(line.removeprefix(b"\xef\xbb\xbf"))
                yield place, len(line), _file_name(row, source, where), where
            place += len(line)


def _row(data: bytes) -> Any:
    """What the JSON says; bad UTF-8 makes one record bad, not the whole manifest."""
    row = fields.parse_json(data.decode("utf-8", "replace"))
    return row if isinstance(row, (dict, list)) else {}


def _is_object(file: File) -> bool:
    try:
        start = storage.read_range(file.path, 0, 1_000)
    except storage.ReadError as error:
        raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _json(file: File, source: DatasetConfig, contents: Any, damage: Counter[str]) -> Iterator[_Row]:
    data = storage.read(file.path, largest=_LARGEST)
    contents.update(data)
    text = data.decode("latin-1").removeprefix("\xef\xbb\xbf")  # one character a byte: places in it are offsets
    moved = len(data) - len(text)

    def parsed(span: tuple[int, int]) -> Any:
        return _row(data[moved + span[0] : moved + span[1]])

    def named(row: Any, where: str) -> str:
        return _file_name(row, source, where)

    start = _SPACE.match(text).end()
    if text[start : start + 1] == "[":
        rows = (
            (*span, named(parsed(span), where := f"row {number} of {file.path}"), where)
            for number, span in enumerate(annotations.items(text, start, file.path), 1)
        )
    else:
        rows = annotations.rows(text, file.path, source, parsed, named, damage)
    for start, end, name, where in rows:
        yield moved + start, end - start, name, where


def _csv(file: File, source: DatasetConfig, contents: Any) -> Iterator[_Row]:
    rows = _csv_rows(file, contents)
    _, _, columns = next(rows, (0, 0, []))
    image = source.image_field
    named = fields.is_template(image) or image in columns or (not image and set(fields.FILE_FIELDS) & set(columns))
    said = source.text_fields or source.label_field or set(fields.TEXT_FIELDS) & set(columns)
    if not named or not said:
        raise CocaError(
            f"{file.path} needs the columns file_name and caption in its first line: add them, or name "
            "others in data.image_field and data.text_fields"
        )
    for number, (place, size, row) in enumerate(rows, 2):
        if row:
            where = f"row {number} of {file.path}"
            yield place, size, _file_name(dict(zip(columns, row, strict=True)), source, where), where


def _csv_rows(file: File, contents: Any = None) -> Iterator[tuple[int, int, list[str]]]:
    """Offset, size and values of each row; a quoted value may hold line breaks."""
    place = 0

    def lines() -> Iterator[str]:
        nonlocal place
        for line in data:
            if contents:
                contents.update(line)
            place += len(line)
            yield line.decode("utf-8-sig" if place == len(line) else "utf-8", "replace")

    with storage.open_file(file) as data:
        start = 0
        reader = csv.reader(lines())
        try:
            for row in reader:
                yield start, place - start, row
                start = place
        except csv.Error as error:
            raise CocaError(f"line {reader.line_num} of {file.path} is no row ({error}): mend or remove it") from error


def _columns(file: File) -> list[str]:
    try:
        return next(_csv_rows(file))[2]
    except (OSError, StopIteration) as error:
        raise CocaError(f"{file.path} cannot be read ({error}): check the path") from error
