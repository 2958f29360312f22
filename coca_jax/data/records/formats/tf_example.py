"""tf.train.Examples by index, in TFRecord and ArrayRecord files."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.quiet_tensorflow import tf
from coca_jax.data.records import fields, index_cache, shard_index
from coca_jax.data.records.record import BadRecord, Record, bad_records
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage import remote
from coca_jax.storage.files import File, is_remote

_HEADER = struct.Struct("<QI")  # a TFRecord's length, and its masked CRC-32C
_FOOTER = 4  # bytes of CRC behind the data
_LONGEST = 4096  # bytes of a feature that is kept as metadata


class Files(Protocol):
    """A file format that holds serialised examples."""

    def index(self, file: File) -> Index:
        """Where they lie; raises CocaError where the file is none of the format."""

    def payloads(self, file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
        """The rows' bytes."""


class TFRecordFiles:
    """TFRecords are read in place; the lengths in front of them are walked along once."""

    def index(self, file: File) -> Index:
        return shard_index.index_of(file, "", _scan)

    def payloads(self, file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
        spans = index.spans[np.asarray(rows, np.int64)].tolist()
        return bad_records(storage.read_spans(file.path, spans, "unreadable TFRecord file"))


class ArrayRecordFiles:
    """ArrayRecords hold an index of their own, which the array_record package reads, from disks and from gs://."""

    def index(self, file: File) -> Index:
        try:
            return Index(np.zeros((_with_reader(file, lambda reader: reader.num_records()), 0), np.int64))
        except _ARRAY_RECORD_ERRORS as error:
            raise CocaError(
                f"{file.path} cannot be read as an ArrayRecord file ({error}): replace it, or leave it out "
                "of data.dataset.train_files and data.dataset.evaluation_files"
            ) from error

    def payloads(self, file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
        try:
            return _with_reader(file, lambda reader: reader.read(list(rows)))
        except _ARRAY_RECORD_ERRORS:
            if len(rows) > 1:  # a damaged record must not spoil those that are read with it
                return [found for row in rows for found in self.payloads(file, index, [row])]
            cause = "unreadable ArrayRecord file" if storage.stat(file.path) else "missing file"
            return [BadRecord(cause)] * len(rows)


class ExampleRecords(ShardedRecords):
    """The examples of some files. The picture is an encoded one, in `source.image_field` or one of the usual features.

    The other features are metadata: text, numbers, or lists of these.
    """

    files: Files

    def __init__(self, source: DatasetConfig, selection: Selection):
        """Opens the files below `source.path` (or the one that it is) by the patterns of their names.

        Raises:
          CocaError: no such folder or file, a file of another format, or no picture or caption in its first example.
        """
        what, endings, files = {
            "tfrecords": ("TFRecord", (".tfrecord", ".tfrec"), TFRecordFiles()),
            "array_records": ("ArrayRecord", (".array_record", ".arrayrecord"), ArrayRecordFiles()),
        }[source.format]

        def is_shard(name: str) -> bool:
            plain = PurePosixPath(name).name
            return any(ending in plain for ending in endings) and not plain.endswith((".index", ".json"))

        self._begin(index_cache.find_shards(source, selection, is_shard, what), files, source, selection)

    def _begin(self, found: Sequence[File], files: Files, source: DatasetConfig, selection: Selection) -> None:
        self.files = files
        super().__init__(found, source, selection)
        self._check_first()

    def _check_first(self) -> None:
        for number in range(len(self._files)):
            index = self._open(number).index
            if not len(index):
                continue
            (row,) = self._read_rows(number, index, [0])
            if isinstance(row, BadRecord):
                return  # dirt, which is counted when it is read
            where = f"the examples of {self._source.path} ({self._files[number].name} …)"
            there = f"there is {', '.join(sorted(row))}"
            if _picture_field(row, self._source) is None:
                name = self._source.image_field or "a usual name"
                raise CocaError(
                    f"{where} have no picture under {name} ({there}): name its feature with data.dataset.image_field"
                )
            label = self._source.label_field
            if label and fields.lookup(row, label) is None:
                raise CocaError(f"{where} have no feature {label!r} ({there}): change data.dataset.label_field")
            usual = (fields.lookup(row, field) is not None for field in fields.TEXT_FIELDS)
            if not label and not self._source.text_fields and not any(usual):
                raise CocaError(
                    f"{where} have no caption under a usual name ({there}): name its feature with "
                    "data.dataset.text_fields, or a class's with data.dataset.label_field"
                )
            return

    def _index(self, number: int) -> Index:
        return self.files.index(self._files[number])

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        return [_carefully(_features, payload) for payload in self.files.payloads(self._files[number], index, rows)]

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        payloads = self.files.payloads(self._files[number], index, rows)
        keys = (self._key(number, index, row) for row in rows)
        return [_carefully(self._record, payload, key) for payload, key in zip(payloads, keys, strict=True)]

    def _record(self, payload: bytes | BadRecord, key: str) -> Record:
        row = _features(payload)
        field = _picture_field(row, self._source)
        picture = row.get(field)
        if isinstance(picture, list):
            raise BadRecord("several pictures in one example")
        if not isinstance(picture, bytes) or not picture:
            raise BadRecord("example without picture")
        return Record(key, picture, fields.captions(row, self._source), self._metadata(row))

    def _metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        big = [name for name, value in row.items() if isinstance(value, bytes) and len(value) > _LONGEST]
        return fields.metadata(row, [*big, _picture_field(row, self._source)])


def _carefully(work: Any, *arguments: Any) -> Any:
    try:
        return work(*arguments)
    except BadRecord as error:
        return error


def _features(payload: bytes | BadRecord) -> dict[str, Any]:
    """An example's features: bytes, numbers, or lists of them where there are not exactly one."""
    if isinstance(payload, BadRecord):
        raise payload
    try:
        example = tf.train.Example.FromString(payload)
    except Exception as error:  # protobuf's DecodeError, whose module depends on its implementation
        raise BadRecord("damaged example") from error
    row = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        row[name] = values[0] if len(values) == 1 else values
    return row


def _picture_field(row: dict[str, Any], source: DatasetConfig) -> str | None:
    wanted = (source.image_field,) if source.image_field else fields.IMAGE_FIELDS
    return next((field for field in wanted if field in row), None)


def _scan(file: File) -> Index:
    spans, damage, place = [], {}, 0
    try:
        with storage.open_file(file) as data:
            while place < file.size:
                data.seek(place)
                header = data.read(_HEADER.size)
                length, crc = _HEADER.unpack(header) if len(header) == _HEADER.size else (file.size, 0)
                end = place + _HEADER.size + length + _FOOTER
                if end > file.size or crc != _masked_crc(header[:8]):
                    damage["broken TFRecord tail"] = 1
                    break
                spans.append((place + _HEADER.size, length))
                place = end
    except OSError as error:
        raise CocaError(
            f"{file.path} cannot be read ({error}): replace it, or leave it out of data.dataset.train_files"
        ) from error
    if damage and not spans:
        raise CocaError(
            f"{file.path} cannot be read as a TFRecord file (compressed ones have no random access): "
            "replace it, or leave it out of data.dataset.train_files and data.dataset.evaluation_files"
        )
    table = np.array(spans, np.int64).reshape(-1, 2)
    return Index(table, damage=damage, digest=hashlib.sha256(table.tobytes()).hexdigest())


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecords mask it; of eight bytes, so that no library is worth its weight."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# What its C++ code raises, as pybind11 translates statuses.
_ARRAY_RECORD_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


def _with_reader(file: File, work: Callable[[Any], Any]) -> Any:
    """What `work` makes of a reader. It is opened anew: a thousand shards would exceed the limit on open files."""
    if is_remote(file.path) and not file.path.startswith("gs://"):
        raise CocaError(
            f"{file.path} is an ArrayRecord file, and those are read from disks and from gs:// only: mount "
            "the bucket (mountpoint-s3, rclone mount), copy the files to a disk, or use TFRecords"
        )
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise CocaError("ArrayRecord files need a package that is not installed: pip install array_record") from error

    def read() -> Any:
        # No readahead, no threads: what random access wants.
        reader = array_record_module.ArrayRecordReader(file.path, "readahead_buffer_size:0,max_parallelism:0")
        result = work(reader)
        reader.close()  # raises what went wrong before; a reader that failed closes when it is forgotten
        return result

    return remote.persistently(file.path, read) if is_remote(file.path) else read()
