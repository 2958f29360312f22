"""Prepared TFDS datasets by index: their shards are read directly, and no image is decoded on the way."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.quiet_tensorflow import tf as tf  # before tensorflow_datasets, which imports tensorflow too
from coca_jax.data.records.formats import array_record, tfrecord
from coca_jax.data.records.formats.tf_example import ExampleRecords
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, is_remote

_INFO = "dataset_info.json"
_KINDS = {"tfrecord": tfrecord, "array_record": array_record}


class TfdsRecords(ExampleRecords):
    """The examples of some splits of a prepared dataset; class names are its own.

    `train_files` and `evaluation_files` name splits ("train", "train[:90%]"); ("*",) is "train".
    """

    def __init__(self, dataset: DatasetConfig, selection: Selection):
        """Opens the dataset of `dataset.path`: its version's folder, "name/config:version" below TFDS_DATA_DIR or
        ~/tensorflow_datasets, or any folder above versions, of which the last one is taken.

        Raises:
          CocaError: no such dataset or split, a file format without random access, or as `ExampleRecords`.
        """
        builder = _builder(dataset.path)
        file_format = builder.info.file_format.value
        if file_format not in _KINDS:
            raise CocaError(
                f"{dataset.path} is stored as {file_format}, which has no random access: prepare it again with "
                "file_format array_record or tfrecord"
            )
        splits = ("train" if split == "*" else split for split in selection.files)  # they may overlap, if so configured
        shards = [shard for split in splits for shard in _shards(builder, split, dataset.path)]
        self._parts = [part for _, part in shards]
        self.class_names = _class_names(builder.info.features, dataset.label_field)
        super().__init__(dataset, selection, _KINDS[file_format], [file for file, _ in shards])

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray, str]:
        skip, take, total = self._parts[number]
        if len(index) != total:
            raise CocaError(
                f"{self._files[number].path} holds {len(index)} examples instead of {total}: prepare "
                f"{self._dataset.path} again"
            )
        place = np.arange(total)
        return (place >= skip) & (place < skip + take), ""

    def _chosen(self) -> str:
        # A part of a shard has the shard's name and size.
        whole = all(part == (0, part[2], part[2]) for part in self._parts)
        return super()._chosen() + ("" if whole else repr(self._parts))


def check(dataset: DatasetConfig, splits: Sequence[str], labels: Sequence[str]) -> None:
    """Raises CocaError if the dataset, one of `splits` or a feature of `labels` is missing; reads no example."""
    builder = _builder(dataset.path)
    for split in splits:
        list(_shards(builder, split, dataset.path))
    there = list(builder.info.features)
    for label in filter(None, labels):
        if label not in there and label.partition("/")[0] not in there:
            raise CocaError(f"{dataset.path} has no field {label!r} (there is {', '.join(there)}): change label_field")


def _builder(path: str) -> Any:
    import tensorflow_datasets as tfds

    folder = _folder(path)
    if folder is None:
        raise CocaError(
            f"there is no prepared TFDS dataset at {path} or below {_data_folder()}: prepare it with `tfds build`, or "
            "set the dataset's path to the folder that holds its dataset_info.json"
        )
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # tfds raises errors of many kinds on damaged metadata
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CocaError(f"{folder} cannot be read as a TFDS dataset ({reason}): prepare it again") from error


def _data_folder() -> str:
    return os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")


def _folder(path: str) -> str | None:
    """The version's folder that a path or a name means."""
    places = [path.rstrip("/")]
    if not is_remote(path):
        places += [f"{_data_folder()}/{path.replace(':', '/')}", path.replace(":", "/")]
    for place in places:
        if storage.stat(f"{place}/{_INFO}"):
            return place
        versions = _versions_below(place)
        if versions:
            return max(versions, key=_age)
    return None


def _versions_below(place: str) -> list[str]:
    if is_remote(place):
        names = (file.name for file in storage.list_files(place))
        return [f"{place}/{name.removesuffix(f'/{_INFO}')}" for name in names if name.endswith(f"/{_INFO}")]
    return [parent for parent, _, names in os.walk(place) if _INFO in names]


def _age(folder: str) -> tuple[list[int], str]:
    """Orders versions by their numbers."""
    parts = os.path.basename(folder).split(".")
    return [int(part) for part in parts if part.isdecimal()], folder


def _shards(builder: Any, split: str, path: str) -> Iterator[tuple[File, tuple[int, int, int]]]:
    """Each shard of a split, with the numbers of examples to skip, to take, and in all."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        there = ", ".join(builder.info.splits) or "none"
        raise CocaError(
            f"{path} has no split {split!r} (there is {there}): change train_files or evaluation_files"
        ) from error
    for instruction in instructions:
        file = storage.stat(instruction.filename)
        if file is None:
            raise CocaError(f"the shard {instruction.filename} is missing: prepare {path} again")
        yield file, (instruction.skip, instruction.take, instruction.examples_in_shard)


def _class_names(features: Any, label_field: str) -> tuple[str, ...] | None:
    """The names of the label's classes, or of the only feature that has any."""
    by_feature = dict(_labels(features, ""))
    if not label_field and len(by_feature) == 1:
        (label_field,) = by_feature
    return tuple(by_feature.get(label_field, ())) or None


def _labels(feature: Any, name: str) -> Iterator[tuple[str, Sequence[str]]]:
    inner = getattr(feature, "feature", None)  # of a sequence
    if inner is not None:
        yield from _labels(inner, name)
    elif hasattr(feature, "items") and hasattr(feature, "keys"):
        for key in feature:
            yield from _labels(feature[key], f"{name}/{key}" if name else key)
    elif getattr(feature, "names", None):
        yield name, feature.names
