"""Parquet files, such as those of Hugging Face's datasets: an image column, and columns of captions and metadata.

A row is reached through its row group. Small row groups are kept for the neighbours of a row; of large ones the rows
before it are streamed past, so that memory stays bounded. Row groups of 16 to 100 rows read fastest.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_files
from coca_jax.data.records.formats.manifest import ImageFiles
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_FOOTERS = 256  # files whose footers are kept
_GROUPS = 16  # row groups that are kept, …
_LARGEST_GROUP = 16 * 1024 * 1024  # … each of at most so many bytes
_BATCH = 16  # rows decoded at a time of a larger row group
_BUFFER = 1024 * 1024  # bytes read at a time of a larger row group
_BYTES, _TEXT = (pa.binary(), pa.large_binary(), pa.binary_view()), (pa.string(), pa.large_string(), pa.string_view())
_CAUSE = "unreadable Parquet file"
_DAMAGE = (pa.ArrowException, OSError)


class ParquetRecords(ShardedRecords):
    """The rows of Parquet files.

    The image is in `image_field` or one of the usual columns: encoded bytes, or Hugging Face's struct of bytes and
    path. Text there, or in a column such as file_name, names an image file below the folder of the Parquet file. The
    other columns are captions and metadata, but for those that hold bytes within structs. `class_names` are those of
    Hugging Face's ClassLabel.
    """

    def __init__(self, dataset: DatasetConfig, selection: Selection):
        """Opens the selected files of `dataset.path`; CocaError if one cannot be read, or lacks images or captions."""
        files = shard_files.find_shards(dataset, selection)
        super().__init__(files, dataset, selection)
        schema = self._schema(0)
        row = {field.name: _example(field.type) for field in schema}
        problem = fields.FieldCheck(dataset).add(row).problem(files[0].path)
        if problem:
            raise CocaError(problem)
        self.class_names = _class_names(schema, dataset.label_field)

    def _schema(self, number: int) -> pa.Schema:
        return _footer(self._files[number])[0].schema.to_arrow_schema()

    def _index(self, number: int) -> Index:
        file = self._files[number]
        try:
            footer, _ = _footer(file)
            schema = self._schema(number)
        except _DAMAGE as error:
            raise shard_files.unreadable(file, "a Parquet file", str(error).splitlines()[0]) from error
        if not fields.is_template(self._dataset.image_field) and not _image_column(schema, self._dataset):
            columns = [f"{field.name}: {field.type}" for field in schema]
            raise CocaError(
                fields.without_image(file.path, columns, self._dataset)
                + "; images that were downloaded into tars beside such a table are read with format=tars"
            )
        digest = hashlib.sha256(repr(footer.to_dict()).encode()).hexdigest()
        return Index(np.zeros((footer.num_rows, 0), np.int64), digest=digest)

    def _read(self, number: int, index: Index, rows: Sequence[int], images: bool) -> list[Any]:
        file, result = self._files[number], list[Any]([None] * len(rows))
        try:
            schema, (_, ends) = self._schema(number), _footer(file)
        except _DAMAGE:
            return [shard_files.lost(file, _CAUSE)] * len(rows)
        image = _image_column(schema, self._dataset)
        skipped = image if image and not images and schema.field(image).type not in _TEXT else None
        columns = tuple(
            field.name
            for field in schema
            if field.name != skipped and (not _has_inner_bytes(field.type) or field.name == image)
        )
        below = ImageFiles(file.path)
        groups = np.searchsorted(ends, rows, side="right")
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group).tolist()
            first = int(ends[group - 1]) if group else 0
            try:
                values = _read_group(file, group, columns, [rows[place] - first for place in places])
            except _DAMAGE:
                values = [shard_files.lost(file, _CAUSE)] * len(places)
            for place, row in zip(places, values, strict=True):
                result[place] = row if isinstance(row, BadRecord) else self._divided(row, image, below)
        if images:
            named = [i for i, one in enumerate(result) if isinstance(one, tuple) and isinstance(one[0], str)]
            data = bad_records(storage.read_each([f"{below.folder}/{result[i][0]}" for i in named]))
            for i, one in zip(named, data, strict=True):
                result[i] = one, result[i][1]
        return result

    def _divided(self, row: dict[str, Any], column: str, below: ImageFiles) -> tuple[Any, dict[str, Any]]:
        """The row's encoded image, or its file; and the rest of the row."""
        image = row.get(column) if column else fields.file_name(row, self._dataset.image_field)
        if not isinstance(image, str):
            row = {name: value for name, value in row.items() if name != column}
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            image = below.relative(image) or BadRecord("image file outside its folder")
        return image or None, row


@functools.lru_cache(maxsize=_FOOTERS)
def _footer(file: File) -> tuple[pq.FileMetaData, np.ndarray]:
    """A file's footer, and the row after each row group's last one: int64 [groups]."""
    with storage.open_file(file) as data:
        footer = pq.read_metadata(data)
    return footer, np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)], dtype=np.int64)


def _read_group(file: File, group: int, columns: tuple[str, ...], rows: Sequence[int]) -> list[Any]:
    footer, _ = _footer(file)
    about = footer.row_group(group)
    chunks = (about.column(i) for i in range(about.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    if size <= _LARGEST_GROUP:
        table = _small_group(file, group, columns)
        return [table.slice(row, 1).to_pylist()[0] for row in rows]
    values: dict[int, Any] = {}
    start = 0
    with storage.open_file(file) as data:
        table = pq.ParquetFile(data, metadata=footer, buffer_size=_BUFFER, pre_buffer=False)
        for batch in table.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
            inside = (row for row in rows if start <= row < start + len(batch))
            values |= {row: batch.slice(row - start, 1).to_pylist()[0] for row in inside}
            start += len(batch)
            if start > max(rows):
                break
    return [values[row] for row in rows]


@functools.lru_cache(maxsize=_GROUPS)
def _small_group(file: File, group: int, columns: tuple[str, ...]) -> pa.Table:
    with storage.open_file(file) as data:
        # With pre_buffer, Arrow's own threads call the Python file; a process that read so ended in a segmentation fault.
        table = pq.ParquetFile(data, metadata=_footer(file)[0], pre_buffer=False)
        return table.read_row_group(group, list(columns), use_threads=False)


def _image_column(schema: pa.Schema, dataset: DatasetConfig) -> str:
    """The column of encoded images, or else of image files; "" if there is none, or `image_field` is a template."""
    wanted = (dataset.image_field,) if dataset.image_field else fields.IMAGE_FIELDS
    there = [name for name in wanted if name in schema.names]
    stored = (name for name in there if (kind := schema.field(name).type) in _BYTES or _has_inner_bytes(kind))
    named = [name for name in (there if dataset.image_field else fields.FILE_FIELDS) if name in schema.names]
    files = (name for name in named if schema.field(name).type in _TEXT)
    return next(stored, "") or next(files, "")


def _has_inner_bytes(kind: pa.DataType) -> bool:
    """Whether a struct, or a list of any depth, holds bytes."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return any(one in _BYTES or _has_inner_bytes(one) for one in inner)


def _example(kind: pa.DataType) -> Any:
    """A value of the type, as far as the names of its fields go."""
    if pa.types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_example(kind.value_type)]
    return ""


def _class_names(schema: pa.Schema, label_field: str) -> tuple[str, ...] | None:
    """The names of the label's classes in the features that Hugging Face's datasets keep beside the schema."""
    about = fields.parse_json((schema.metadata or {}).get(b"huggingface", b""))
    feature = fields.lookup(about, f"info/features/{label_field}")
    names = fields.lookup(feature, "names") or fields.lookup(feature, "feature/names")
    return tuple(map(str, names)) if isinstance(names, list) else None
