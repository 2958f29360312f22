"""The record store that a dataset's config names."""

import contextlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config.data import SHARD_ENDINGS, DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.formats import array_record, manifest, tar, tfrecord
from coca_jax.data.records.formats.folder import FolderRecords
from coca_jax.data.records.record import RecordStore, RecordText
from coca_jax.data.records.selection import KeyList, Selection, expand_braces
from coca_jax.data.records.shard_files import ends_in
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import is_remote

SPLITS = ("train", "evaluation")
_PROBES = 100  # records whose fields an error names
_SHOWN = 40  # characters of a value in an error
_ENDINGS = {**SHARD_ENDINGS, "folder": manifest.SUFFIXES}  # of single files that may be a dataset's path


class EmptySplit(CocaError):
    """A dataset has records, and its selection leaves none of them to a split."""


def open_records(dataset: DatasetConfig, split: str) -> RecordStore:
    """The records of one split of `dataset.path`.

    Where `evaluation_files` are named, they are the held-out records and never train; where `holdout_where`, the records
    that meet one of its conditions; elsewhere a share `holdout`, chosen by a hash of each record's key, so that adding
    records moves none to the other split.
    Raises EmptySplit if no record is left, CocaError if the folder or its files are missing, or images have no captions.
    """
    _check_kind(dataset)
    selection = _selection(dataset, split)
    store = _open(dataset, selection)
    if not len(store):
        problem = f"none of the {store.census.total} records of {dataset.path} is left for {split}"
        raise EmptySplit(f"{problem}{_unmet(dataset, selection)}: change the dataset's {_reasons(selection)}")
    return store


def _reasons(selection: Selection) -> str:
    """The keys of a dataset that can have left its split empty."""
    evaluates_named = not selection.part and not selection.without_files
    keys = {
        "holdout_where" if isinstance(selection.holdout, tuple) else "holdout": bool(selection.part),
        "only": selection.only,
        "exclude": selection.exclude,
        "exclude_keys": selection.exclude_keys,
        "train_files": not evaluates_named and selection.files != ("*",),
        "evaluation_files": evaluates_named or selection.without_files,
    }
    return " or ".join(key for key, has_effect in keys.items() if has_effect)


def _unmet(dataset: DatasetConfig, selection: Selection) -> str:
    """In brackets, which condition that records must meet none of some records does; "" if each has some that do."""
    needed = [selection.only]
    if isinstance(selection.holdout, tuple) and selection.part == SPLITS[1]:
        needed.append(selection.holdout)
    rows: list[Mapping[str, Any]] = []
    with contextlib.suppress(CocaError):  # all records together may have other faults than those of this split
        if any(needed):
            store = _open(dataset, Selection(files=selection.files))
            some = np.unique(np.linspace(0, len(store) - 1, min(len(store), _PROBES)).astype(np.int64)).tolist()
            rows = [one.metadata for one in store.read_texts(some) if isinstance(one, RecordText)]
    for conditions in needed:
        pairs = [(field, value) for field, _, value in (condition.partition("=") for condition in conditions)]
        if not rows or not pairs or any(str(row.get(field)) == value for row in rows for field, value in pairs):
            continue
        field, value = pairs[0]
        there = dict.fromkeys(name for row in rows for name in row)
        if field not in there:
            return f" (there is no field {field!r}, but {fields.listing(there)})"
        values = dict.fromkeys(textwrap.shorten(str(row[field]), _SHOWN) for row in rows if field in row)
        return f" (none of {len(rows)} records has {field}={value}, but {fields.listing(values)})"
    return ""


def _selection(dataset: DatasetConfig, split: str) -> Selection:
    for key in ("exclude", "only", "holdout_where"):
        conditions = getattr(dataset, key)
        wrong = [condition for condition in conditions if not condition.partition("=")[0] or "=" not in condition]
        if wrong:
            raise CocaError(f"{key} of {dataset.path} has {wrong[0]!r}: write it as field=value, such as split=test")
    training = split == SPLITS[0]
    if not training and not dataset.holds_out:
        problem = f"holdout is 0, so that all records of {dataset.path} train and none is left to evaluate"
        raise CocaError(f"{problem}: set the dataset's holdout, such as 0.01, its holdout_where or evaluation_files")
    named = bool(dataset.evaluation_files)
    return Selection(
        part="" if named else split,
        holdout=0.0 if named else dataset.holdout_where or dataset.holdout,
        exclude=dataset.exclude if training else (),
        only=dataset.only,
        exclude_keys=KeyList.from_file(dataset.exclude_keys) if training and dataset.exclude_keys else None,
        files=dataset.train_files if training or not named else dataset.evaluation_files,
        without_files=dataset.evaluation_files if training else (),
    )


def _check_kind(dataset: DatasetConfig) -> None:
    """Raises CocaError if the path is a file, or a pattern of files, of a kind that the format does not read."""
    path = dataset.path
    if "{" in path:
        with contextlib.suppress(CocaError):  # it may be a folder's name
            path = expand_braces(path)[0]
    name = path.rstrip("/").rpartition("/")[2].lower()
    endings = _ENDINGS.get(dataset.format, ())
    if not endings or ends_in(name, endings) or storage.stat(path) is None:
        return
    others = (f"set format={one}" for one, endings in _ENDINGS.items() if ends_in(name, endings))
    todo = next(others, "give the folder that holds it")
    if fields.suffix_of(name) in ("zip", "tgz", "gz", "bz2", "xz", "7z", "rar", "zst"):
        todo = "unpack it, and give the folder"
    raise CocaError(
        f"{path} is a file that format={dataset.format} does not read: {todo} (it reads {', '.join(endings)})"
    )


def _open(dataset: DatasetConfig, selection: Selection) -> RecordStore:
    match dataset.format:  # formats that need tensorflow are imported only where they are used
        case "tars":
            return tar.TarRecords(dataset, selection)
        case "folder":
            return FolderRecords(dataset, selection)
        case "tfrecords" | "array_records" as kind:
            from coca_jax.data.records.formats import tf_example

            return tf_example.ExampleRecords(dataset, selection, tfrecord if kind == "tfrecords" else array_record)
        case "parquet":
            from coca_jax.data.records.formats.parquet import ParquetRecords

            return ParquetRecords(dataset, selection)
        case "tfds":
            from coca_jax.data.records.formats.tfds import TfdsRecords

            return TfdsRecords(dataset, selection)
    raise CocaError(f"the format {dataset.format!r} has no records: choose one that is stored in files")


def check_place(dataset: DatasetConfig, split: str, labels: Sequence[str]) -> None:
    """Raises CocaError, before any record is read, if a local path or a TFDS dataset, split or label is missing.

    `labels` are fields that the records must have; only a TFDS dataset lists its fields beforehand.
    """
    if dataset.format == "tfds":
        from coca_jax.data.records.formats import tfds

        tfds.check(dataset, dataset.train_files if split == SPLITS[0] else dataset.evaluation_files, labels)
    elif not is_remote(dataset.path) and "{" not in dataset.path and not os.path.exists(dataset.path):
        raise CocaError(f"{dataset.path} does not exist: set the dataset's path to where its records lie")


def summary(dataset: DatasetConfig, store: RecordStore) -> str:
    """One sentence about the records that a run's train split found, such as
    "26,640 records train, 2,960 held out, 12 left out (image without text: 12, e.g. a.tar:k017)"."""
    census = store.census
    held = f"those of {' '.join(dataset.evaluation_files)}" if census.held_out is None else f"{census.held_out:,}"
    parts = [f"{len(store):,} records train", f"{held} held out"]
    causes = [
        f"{cause}: {count:,}" + (f", e.g. {census.names[cause]}" if cause in census.names else "")
        for cause, count in sorted(census.damage.items(), key=lambda item: -item[1])
    ]
    excluded = census.total - (census.held_out or 0) - len(store)
    if excluded:
        causes.append(f"excluded by the config: {excluded:,}")
    left_out = sum(census.damage.values()) + excluded
    if left_out:
        parts.append(f"{left_out:,} left out ({'; '.join(causes)})")
    return ", ".join(parts)
