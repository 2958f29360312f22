"""Records, and the interface of the stores that give them by index."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from coca_jax.storage.files import ReadError

_TOGETHER = 64  # records whose texts are read together; a TFRecord's or ArrayRecord's bring their images along


class BadRecord(Exception):
    """A record that cannot be used; `cause` is a short phrase by which such records are counted."""

    def __init__(self, cause: str):
        super().__init__(cause)
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class RecordText:
    """A record without its image.

    Attributes:
      captions: non-empty texts; at least one, unless the dataset's texts are made from labels.
      metadata: all other fields.
    """

    captions: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """One stored item: encoded images or clips, and as `RecordText`.

    Attributes:
      key: by which `holdout` and `exclude_keys` choose; unique within the store, but for several rows of one image.
      second_image: of a pair of images; empty: there is none.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    metadata: Mapping[str, Any]
    second_image: bytes = b""


@dataclasses.dataclass(frozen=True)
class Census:
    """Counts of the records in the files of one split.

    Attributes:
      total: usable records, before any selection.
      held_out: usable records on the held-out side of `holdout`; None if the held-out records have files of their own.
      damage: unusable records and broken files, counted by cause.
      names: one of them by cause, where known.
    """

    total: int
    held_out: int | None = None
    damage: Mapping[str, int] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


class RecordStore(Protocol):
    """Records by index, in a fixed order. Several threads may read at the same time.

    Attributes:
      census: counts of what the store's files hold.
      fingerprint: hex digits that change with the records, independent of where they lie.
      class_names: class names by number, if the format itself knows them (TFDS).
    """

    census: Census
    fingerprint: str
    class_names: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Record | BadRecord]:
        """The records, neighbours in one read, with a BadRecord in place of each unusable one."""

    def read_texts(self, indices: Sequence[int]) -> list[RecordText | BadRecord]:
        """The records without their images, neighbours in one read, with a BadRecord in place of each unusable one."""

    def key(self, index: int) -> str:
        """`Record.key` of the record, without reading it."""

    def name(self, index: int) -> str:
        """The path at which a person finds the record."""


def each_text(store: RecordStore, indices: Sequence[int]) -> Iterator[tuple[int, RecordText | BadRecord]]:
    """Each index with its record's text; neighbours share a read."""
    for start in range(0, len(indices), _TOGETHER):
        some = indices[start : start + _TOGETHER]
        yield from zip(some, store.read_texts(some), strict=True)


def joined(
    key: str, image: bytes | BadRecord, text: RecordText | BadRecord, second_image: bytes | BadRecord = b""
) -> Record | BadRecord:
    """The record of an image, or a pair of them, and its text; or the first of these that is unusable."""
    if isinstance(image, BadRecord):
        return image
    if isinstance(second_image, BadRecord):
        return second_image
    return text if isinstance(text, BadRecord) else Record(key, image, text.captions, text.metadata, second_image)


def bad_records(reads: Sequence[bytes | ReadError]) -> list[bytes | BadRecord]:
    """The reads, each ReadError replaced by the BadRecord that it makes of its record."""
    return [BadRecord(data.cause) if isinstance(data, ReadError) else data for data in reads]
