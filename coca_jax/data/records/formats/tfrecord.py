"""TFRecord files by index: read in place; the lengths in front of the records are followed once."""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from coca_jax.data.records import shard_files, shard_index
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.shard_index import Index
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_HEADER = struct.Struct("<QI")  # a record's length, and the masked CRC-32C of that
_FOOTER = 4  # bytes of CRC behind the data


def index(file: File, image_field: str = "", beside: bool = False) -> Index:
    """Where the records of a file lie; see `tar.index`, except that `image_field` has no influence."""
    del image_field
    return shard_index.index_of(file, "", _scan, beside=beside)


def payloads(file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
    """The serialised records of some rows of the index."""
    spans = index.spans[np.asarray(rows, np.int64)].tolist()
    return bad_records(storage.read_spans(file.path, spans, "unreadable TFRecord file"))


def _scan(file: File) -> Index:
    from tensorboardX.record_writer import masked_crc32c  # here, because it looks for drivers of clouds when imported

    spans: list[tuple[int, int]] = []
    damage: dict[str, int] = {}
    place = 0
    try:
        with storage.open_file(file) as data:
            while place < file.size:
                data.seek(place)
                header = data.read(_HEADER.size)
                length, crc = _HEADER.unpack(header) if len(header) == _HEADER.size else (file.size, 0)
                end = place + _HEADER.size + length + _FOOTER
                if end > file.size or crc != masked_crc32c(header[:8]):
                    damage["broken TFRecord tail"] = 1
                    break
                spans.append((place + _HEADER.size, length))
                place = end
    except OSError as error:
        raise shard_files.unreadable(file, "a TFRecord file", error) from error
    if damage and not spans:
        raise shard_files.unreadable(file, "a TFRecord file", "compressed ones have no random access")
    table = np.array(spans, np.int64).reshape(-1, 2)
    return Index(table, damage=damage, digest=hashlib.sha256(table.tobytes()).hexdigest())
