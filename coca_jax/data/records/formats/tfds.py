"""Prepared TFDS data sets by index: their shards are read directly, and no picture is decoded on the way."""

import collections
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.quiet_tensorflow import tf as tf  # before tensorflow_datasets, which imports tensorflow too
from coca_jax.data.records.formats.tf_example import ArrayRecordFiles, ExampleRecords, TFRecordFiles
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File, is_remote

_INFO = "dataset_info.json"
_FORMATS = {"tfrecord": TFRecordFiles, "array_record": ArrayRecordFiles}


class TfdsRecords(ExampleRecords):
    """The examples of some splits of a prepared data set; class names are its own.

    `train_files` and `evaluation_files` name splits ("train", "train[:90%]"); ("*",) is "train".
    """

    def __init__(self, source: DatasetConfig, selection: Selection):
        """Opens the set of `source.path`: its version's folder, "name/config:version" below TFDS_DATA_DIR or
        ~/tensorflow_datasets, or any folder above the version, of which the last one is taken.

        Raises:
          CocaError: no such set or split, a file format without random access, or no picture or caption in it.
        """
        builder = _builder(source.path)
        files_format = builder.info.file_format.value
        if files_format not in _FORMATS:
            raise CocaError(
                f"{source.path} is stored as {files_format}, which has no random access: prepare it again "
                "with file_format array_record or tfrecord"
            )
        files, self._parts = [], []
        for split in selection.files:  # splits that overlap are the user's choice
            for file, part in _shards(builder, "train" if split == "*" else split, source.path):
                files.append(file)
                self._parts.append(part)
        self.class_names = _class_names(builder.info.features, source.label_field)
        self._begin(files, _FORMATS[files_format](), source, selection)

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray | None, Mapping[str, int]]:
        skip, take, total = self._parts[number]
        if len(index) != total:
            raise CocaError(
                f"{self._files[number].path} holds {len(index)} examples instead of {total}: prepare "
                f"{self._source.path} again"
            )
        if (skip, take) == (0, total):
            return None, {}
        place = np.arange(total)
        return (place >= skip) & (place < skip + take), {}

    def _chosen(self) -> str:
        """A part of a shard has the shard's name and size."""
        whole = all(part == (0, part[2], part[2]) for part in self._parts)
        return super()._chosen() + ("" if whole else repr(self._parts))


def check(source: DatasetConfig, patterns: Sequence[str], labels: Sequence[str]) -> None:
    """Raises CocaError where the set, a split of `patterns` or a feature of `labels` is missing; reads no example."""
    builder = _builder(source.path)
    for split in patterns:
        collections.deque(_shards(builder, split, source.path), maxlen=0)
    there = list(builder.info.features)
    for label in filter(None, labels):
        if label not in there and label.partition("/")[0] not in there:
            raise CocaError(
                f"the examples of {source.path} have no feature {label!r} (there is {', '.join(there)}): "
                "change data.dataset.label_field"
            )


def _builder(path: str) -> Any:
    import tensorflow_datasets as tfds

    folder = _folder(path)
    if folder is None:
        below = _data_folder()
        raise CocaError(
            f"there is no prepared TFDS set at {path} or below {below}: prepare it with `tfds build`, or "
            "set data.dataset.path to the folder that holds its dataset_info.json"
        )
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # tfds raises errors of many kinds on damaged metadata
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CocaError(f"{folder} cannot be read as a TFDS set ({reason}): prepare it again") from error


def _data_folder() -> str:
    return os.environ.get("TFDS_DATA_DIR") or os.path.join(os.path.expanduser("~"), "tensorflow_datasets")


def _folder(path: str) -> str | None:
    """The version's folder that a path or a name means."""
    places = [path.rstrip("/")]
    if not is_remote(path):
        places += [f"{_data_folder()}/{path.replace(':', '/')}", path.replace(":", "/")]
    for place in places:
        if storage.stat(f"{place}/{_INFO}"):
            return place
        below = _below(place)
        if below:
            return max(below, key=_age)
    return None


def _below(place: str) -> list[str]:
    """The folders of all versions below a folder."""
    if is_remote(place):
        return [
            f"{place}/{file.name.removesuffix(f'/{_INFO}')}"
            for file in storage.list_files(place)
            if file.name.endswith(f"/{_INFO}")
        ]
    return [parent for parent, _, names in os.walk(place) if _INFO in names]


def _age(folder: str) -> tuple[list[int], str]:
    """Orders versions by their numbers."""
    parts = os.path.basename(folder).split(".")
    return [int(part) for part in parts if part.isdecimal()], folder


def _shards(builder: Any, split: str, path: str) -> Iterator[tuple[File, tuple[int, int, int]]]:
    """Each shard of a split, with how many examples to skip, to take, and to find in it."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        there = ", ".join(builder.info.splits) or "none"
        raise CocaError(
            f"{path} has no split {split!r} (there is {there}): name its splits in data.dataset.train_files and "
            "data.dataset.evaluation_files"
        ) from error
    for instruction in instructions:
        file = storage.stat(instruction.filename)
        if file is None:
            raise CocaError(f"the shard {instruction.filename} is missing: prepare {path} again")
        yield file, (instruction.skip, instruction.take, instruction.examples_in_shard)


def _class_names(features: Any, label_field: str) -> tuple[str, ...] | None:
    """The names of the label's classes, or of the only feature that has any."""
    found = dict(_labels(features, ""))
    names = found.get(label_field) or (next(iter(found.values())) if len(found) == 1 and not label_field else None)
    return tuple(names) if names else None


def _labels(feature: Any, name: str) -> Iterator[tuple[str, Sequence[str]]]:
    inner = getattr(feature, "feature", None)  # of a sequence
    if inner is not None:
        yield from _labels(inner, name)
    elif hasattr(feature, "items") and hasattr(feature, "keys"):
        for key in feature:
            yield from _labels(feature[key], f"{name}/{key}" if name else key)
    elif getattr(feature, "names", None):
        yield name, feature.names
