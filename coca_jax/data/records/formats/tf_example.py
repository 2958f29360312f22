"""Records stored as tf.train.Example, whatever the kind of file that holds them."""

from collections.abc import Sequence
from typing import Any, Protocol

from coca_jax.config import DatasetConfig
from coca_jax.data.quiet_tensorflow import tf
from coca_jax.data.records import fields, index_cache
from coca_jax.data.records.record import BadRecord, Record, joined
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage.files import File


class ExampleFiles(Protocol):
    """A kind of file that holds serialised examples, such as the modules `tfrecord` and `array_record`."""

    ENDINGS: tuple[str, ...]

    def index(self, file: File) -> Index:
        """Where the examples lie; raises CocaError if the file is of another kind."""

    def payloads(self, file: File, index: Index, rows: Sequence[int]) -> list[bytes | BadRecord]:
        """The serialised examples of some rows."""


class ExampleRecords(ShardedRecords):
    """The examples of some files. The image is an encoded one, in `dataset.image_field` or one of the usual features.

    The other features are metadata: text, numbers, or lists of these.
    """

    def __init__(self, dataset: DatasetConfig, selection: Selection, kind: Any, files: Sequence[File] | None = None):
        """Opens files of examples.

        Args:
          kind: of the files: an `ExampleFiles`.
          files: default to the selected ones of `dataset.path`.

        Raises:
          CocaError: no such folder or file, a file of another kind, or no image or caption in its first example.
        """
        self._kind_of_file: ExampleFiles = kind
        if files is None:
            files = index_cache.find_shards(dataset, selection, kind.ENDINGS)
        super().__init__(files, dataset, selection)
        self._check_first()

    def _check_first(self) -> None:
        for number in range(len(self._files)):
            index = self._open(number).index
            if not len(index):
                continue
            (row,) = self._read_rows(number, index, [0])
            if isinstance(row, BadRecord):
                return  # counted when it is read
            where = f"the examples of {self._dataset.path} ({self._files[number].name} …)"
            there = f"there is {', '.join(sorted(row))}"
            if _image_feature(row, self._dataset) is None:
                name = self._dataset.image_field or "a usual name"
                raise CocaError(f"{where} have no image under {name} ({there}): name its feature in image_field")
            label = self._dataset.label_field
            if label and fields.lookup(row, label) is None:
                raise CocaError(f"{where} have no feature {label!r} ({there}): change label_field")
            usual = (fields.lookup(row, field) is not None for field in fields.TEXT_FIELDS)
            if not label and not self._dataset.text_fields and not any(usual):
                raise CocaError(
                    f"{where} have no caption under a usual name ({there}): name its feature in text_fields, or a "
                    "class's in label_field"
                )
            return

    def _index(self, number: int) -> Index:
        return self._kind_of_file.index(self._files[number])

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        return [_features(payload) for payload in self._kind_of_file.payloads(self._files[number], index, rows)]

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        features = self._read_rows(number, index, rows)
        return [self._record(one, self._key(number, index, row)) for one, row in zip(features, rows, strict=True)]

    def _record(self, row: dict[str, Any] | BadRecord, key: str) -> Record | BadRecord:
        if isinstance(row, BadRecord):
            return row
        image = row.get(_image_feature(row, self._dataset) or "")
        if isinstance(image, list):
            return BadRecord("several images in one example")
        if not isinstance(image, bytes) or not image:
            return BadRecord("example without image")
        return joined(key, image, self._text(row))

    def _metadata(self, row: Any) -> dict[str, Any]:
        return fields.metadata(row, [_image_feature(row, self._dataset) or ""])


def _features(payload: bytes | BadRecord) -> dict[str, Any] | BadRecord:
    """An example's features: bytes, numbers, or lists of them where there is not exactly one."""
    if isinstance(payload, BadRecord):
        return payload
    try:
        example = tf.train.Example.FromString(payload)
    except Exception:  # protobuf's DecodeError, whose module depends on its implementation
        return BadRecord("damaged example")
    row = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        row[name] = values[0] if len(values) == 1 else values
    return row


def _image_feature(row: dict[str, Any], dataset: DatasetConfig) -> str | None:
    names = (dataset.image_field,) if dataset.image_field else fields.IMAGE_FIELDS
    return next((name for name in names if name in row), None)
