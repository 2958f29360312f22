"""Records stored as tf.train.Example, whatever the kind of file that holds them."""

from collections.abc import Sequence
from typing import Any

from coca_jax.config import DatasetConfig
from coca_jax.data.quiet_tensorflow import tf
from coca_jax.data.records import fields, shard_files
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.storage.files import File


class ExampleRecords(ShardedRecords):
    """The examples of some files. The image is an encoded one, in `dataset.image_field` or one of the usual features.

    The other features are captions and metadata: text, numbers, or lists of these.
    """

    def __init__(self, dataset: DatasetConfig, selection: Selection, kind: Any, files: Sequence[File] | None = None):
        """Opens `files` (by default the selected ones of `dataset.path`); `kind` is the module that reads them.

        Raises:
          CocaError: no such folder or file, a file of another kind, or no image or caption in the first examples.
        """
        self._file_kind = kind
        super().__init__(shard_files.find_shards(dataset, selection) if files is None else files, dataset, selection)
        self._check_fields(images=True)

    def _index(self, number: int) -> Index:
        return self._file_kind.index(self._files[number])

    def _read(self, number: int, index: Index, rows: Sequence[int], images: bool) -> list[Any]:
        del images  # they come along
        features = [_features(payload) for payload in self._file_kind.payloads(self._files[number], index, rows)]
        return [row if isinstance(row, BadRecord) else (_image(row, self._dataset), row) for row in features]


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


def _image(row: dict[str, Any], dataset: DatasetConfig) -> bytes | BadRecord | None:
    """The encoded image, which is taken out of the example's features; None if there is none."""
    names = (dataset.image_field,) if dataset.image_field else fields.IMAGE_FIELDS
    image = row.pop(next((name for name in names if name in row), ""), None)
    if isinstance(image, list):
        return BadRecord("several images in one example")
    return image if isinstance(image, bytes) and image else None
