"""ArrayRecord files by index, through the array_record package: they hold an index of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from coca_jax.data.records import shard_files
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.shard_index import Index
from coca_jax.errors import CocaError
from coca_jax.storage import remote
from coca_jax.storage.files import File, is_remote

_ERRORS = (RuntimeError, ValueError, IndexError, OSError)  # of the package's C++ code, as pybind11 translates statuses


def index(file: File) -> Index:
    """An index of no more than the number of records; raises CocaError if the file cannot be read."""
    try:
        return Index(np.zeros((_with_reader(file, lambda reader: reader.num_records()), 0), np.int64))
    except _ERRORS as error:
        raise shard_files.unreadable(file, "an ArrayRecord file", error) from error


def payloads(file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
    """The serialised records of some rows of the index."""
    try:
        return _with_reader(file, lambda reader: reader.read(list(rows)))
    except _ERRORS:
        if len(rows) > 1:  # a damaged record must not spoil those that are read with it
            return [payload for row in rows for payload in payloads(file, index, [row])]
        return [shard_files.lost(file, "unreadable ArrayRecord file")] * len(rows)


def _with_reader(file: File, work: Callable[[Any], Any]) -> Any:
    """`work` of a reader, which is opened anew: a thousand shards would exceed the limit on open files."""
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
        # No readahead, no threads: right for random access.
        reader = array_record_module.ArrayRecordReader(file.path, "readahead_buffer_size:0,max_parallelism:0")
        result = work(reader)
        reader.close()  # raises earlier errors; a reader that failed closes when it is garbage-collected
        return result

    return remote.persistently(file.path, read) if is_remote(file.path) else read()
