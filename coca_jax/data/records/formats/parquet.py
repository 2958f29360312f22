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
from coca_jax.data.records import fields, index_cache
from coca_jax.data.records.formats.manifest import ImageFiles
from coca_jax.data.records.record import BadRecord, Record, bad_records, joined
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_SUFFIXES = (".parquet", ".pq")
_FOOTERS = 256  # files whose footers are kept
_GROUPS = 16  # row groups that are kept, …
_LARGEST_GROUP = 16 * 1024 * 1024  # … each of at most so many bytes
_BATCH = 16  # rows decoded at a time of a larger row group
_BUFFER = 1024 * 1024  # bytes read at a time of a larger row group
_DAMAGE = (pa.ArrowException, OSError)


class ParquetRecords(ShardedRecords):
    """The rows of Parquet files.

    The image is in `image_field` or one of the usual columns: encoded bytes, or Hugging Face's struct of bytes and
    path. Text there, or in a column such as file_name, names an image file below the folder of the Parquet file. The
    other columns are captions and metadata, but for those that hold bytes within structs. `class_names` are those of
    Hugging Face's ClassLabel.
    """

    def __init__(self, dataset: DatasetConfig, selection: Selection):
        """Opens the files below `dataset.path` (or the one that it is) by the patterns of their names.

        Raises:
          CocaError: no such folder or file, a file of another format, or no column of images or captions.
        """
        files = index_cache.find_shards(dataset, selection, _SUFFIXES)
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
            reason = str(error).splitlines()[0]
            raise CocaError(
                f"{file.path} cannot be read as a Parquet file ({reason}): replace it, or leave it out of train_files "
                "and evaluation_files"
            ) from error
        if not fields.is_template(self._dataset.image_field) and not _image_column(schema, self._dataset):
            name = repr(self._dataset.image_field) if self._dataset.image_field else "a usual name"
            raise CocaError(
                f"{file.path} has no column of images or image files under {name} (there is "
                f"{fields.listing(f'{field.name}: {field.type}' for field in schema)}): name it in image_field; images "
                "that were downloaded into tars beside such a table are read with format=tars"
            )
        digest = hashlib.sha256(repr(footer.to_dict()).encode()).hexdigest()
        return Index(np.zeros((footer.num_rows, 0), np.int64), digest=digest)

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        return self._values(number, rows, with_images=False)[1]

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        column, values = self._values(number, rows, with_images=True)
        images = self._images(self._files[number], column, values)
        for value in values:
            if isinstance(value, dict) and not isinstance(value.get(column), str):
                value.pop(column, None)
        keys = (self._key(number, index, row) for row in rows)
        return [joined(key, image, self._text(row)) for key, image, row in zip(keys, images, values, strict=True)]

    def _values(
        self, number: int, rows: Sequence[int], with_images: bool
    ) -> tuple[str, list[dict[str, Any] | BadRecord]]:
        """The image column's name, and the columns of each row; a BadRecord in place of each that cannot be read."""
        file, result, image = self._files[number], list[Any]([None] * len(rows)), ""
        try:
            schema, (_, ends) = self._schema(number), _footer(file)
        except _DAMAGE:
            return image, [_unreadable(file)] * len(rows)
        image = _image_column(schema, self._dataset)
        skipped = image if not with_images and image and not _is_text(schema.field(image).type) else None
        columns = tuple(
            field.name
            for field in schema
            if field.name != skipped and (not _has_inner_bytes(field.type) or field.name == image)
        )
        groups = np.searchsorted(ends, rows, side="right")
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group).tolist()
            first = int(ends[group - 1]) if group else 0
            try:
                values = _read_group(file, group, columns, [rows[place] - first for place in places])
            except _DAMAGE:
                values = [_unreadable(file)] * len(places)
            for place, value in zip(places, values, strict=True):
                result[place] = value
        return image, result

    def _images(self, file: File, column: str, rows: Sequence[Any]) -> list[bytes | BadRecord]:
        """The image of each row, from its bytes or from the file that it names."""
        images: list[Any] = []
        below = ImageFiles(file.path)
        for row in rows:
            value = row.get(column) if isinstance(row, dict) and column else row
            if isinstance(value, dict) and column:
                value = value.get("bytes") or value.get("path")
            elif isinstance(value, dict):  # `image_field` is a template
                value = fields.file_name(value, self._dataset)
            if isinstance(value, str):
                value = below.relative(value) or BadRecord("image file outside its folder")
            images.append(value or BadRecord("record without image"))
        named = [i for i, image in enumerate(images) if isinstance(image, str)]
        data = bad_records(storage.read_each([f"{below.folder}/{images[i]}" for i in named]))
        for i, one in zip(named, data, strict=True):
            images[i] = one
        return images


@functools.lru_cache(maxsize=_FOOTERS)
def _footer(file: File) -> tuple[pq.FileMetaData, np.ndarray]:
    """A file's footer, and the row after each row group's last one: int64 [groups]."""
    with storage.open_file(file) as data:
        footer = pq.read_metadata(data)
    return footer, np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)], dtype=np.int64)


def _unreadable(file: File) -> BadRecord:
    return BadRecord("unreadable Parquet file" if storage.stat(file.path) else "missing file")


def _read_group(file: File, group: int, columns: tuple[str, ...], rows: Sequence[int]) -> list[Any]:
    footer, _ = _footer(file)
    about = footer.row_group(group)
    chunks = (about.column(i) for i in range(about.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    if size <= _LARGEST_GROUP:
        return _small_group(file, group, columns).take(rows).to_pylist()
    values: dict[int, Any] = {}
    start = 0
    with storage.open_file(file) as data:
        table = pq.ParquetFile(data, metadata=footer, buffer_size=_BUFFER, pre_buffer=False)
        for batch in table.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
            inside = [row for row in set(rows) if start <= row < start + len(batch)]
            values |= zip(
                inside, batch.take(pa.array([row - start for row in inside], pa.int64())).to_pylist(), strict=True
            )
            start += len(batch)
            if start > max(rows):
                break
    return [values[row] for row in rows]


@functools.lru_cache(maxsize=_GROUPS)
def _small_group(file: File, group: int, columns: tuple[str, ...]) -> pa.Table:
    with storage.open_file(file) as data:
        table = pq.ParquetFile(data, metadata=_footer(file)[0])
        return table.read_row_group(group, list(columns), use_threads=False)


def _image_column(schema: pa.Schema, dataset: DatasetConfig) -> str:
    """The column of encoded images, or else of image files; "" if there is none, or `image_field` is a template."""
    wanted = (dataset.image_field,) if dataset.image_field else fields.IMAGE_FIELDS
    there = [name for name in wanted if name in schema.names]
    stored = (name for name in there if _is_bytes(kind := schema.field(name).type) or _has_inner_bytes(kind))
    named = [name for name in (there if dataset.image_field else fields.FILE_FIELDS) if name in schema.names]
    files = (name for name in named if _is_text(schema.field(name).type))
    return next(stored, "") or next(files, "")


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _has_inner_bytes(kind: pa.DataType) -> bool:
    """Whether a struct, or a list of any depth, holds bytes."""
    if pa.types.is_struct(kind):
        return any(_is_bytes(field.type) or _has_inner_bytes(field.type) for field in kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and (_is_bytes(kind.value_type) or _has_inner_bytes(kind.value_type))


def _example(kind: pa.DataType) -> Any:
    """A value of the type, as far as the names of its fields go."""
    if pa.types.is_struct(kind):
        return {field.name: _example(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_example(kind.value_type)]
    return ""


def _class_names(schema: pa.Schema, label_field: str) -> tuple[str, ...] | None:
    """The names of the label's classes in the features that Hugging Face's datasets keep beside the schema."""
    about = fields.parse_object((schema.metadata or {}).get(b"huggingface", b""))
    feature = fields.lookup(about, f"info/features/{label_field}")
    names = fields.lookup(feature, "names") or fields.lookup(feature, "feature/names")
    return tuple(map(str, names)) if isinstance(names, list) else None
