"""Zero-shot classifications of a dataset: from the labels in its records' metadata to class names, synonyms, candidates."""

import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord, RecordStore, each_text
from coca_jax.data.text import class_names as class_files
from coca_jax.data.text.class_names import Names
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import Classification

_log = logging.getLogger(__name__)


def classifications(
    name: str, config: EvaluationDatasetConfig, store: RecordStore, metadata: Sequence[Mapping[str, Any]]
) -> tuple[Classification, ...]:
    """For the records with this metadata, one by each of `classification.fields`, or that by `label_field`, if needed.

    Raises CocaError as `classification`, or if no record describes the classes.
    """
    if not {"classification", "likelihood_classification", "few_shot"}.intersection(config.tasks):
        return ()
    keys, names = config.classification, _names(config)
    others = _other_labels(config, names) if keys.candidate_files and not config.dataset.class_names else {}
    members = _members(name, config, [field for field in names if field != keys.described_by])
    results = []
    for field, spoken in names.items():
        labels = [record_labels(fields.lookup(row, field)) for row in metadata]
        known = store.class_names if field == config.dataset.label_field else None
        more, own = others.get(field, ()), members.get(field)
        try:
            results.append(classification(spoken, labels, config, known=known, others=more, members=own))
        except CocaError as error:
            raise CocaError(f"{name}: {error}") from None
    return tuple(results)


def training_targets(
    config: EvaluationDatasetConfig,
    store: RecordStore,
    metadata: Sequence[Mapping[str, Any]],
    tasks: Sequence[Classification],
) -> dict[str, np.ndarray]:
    """By the name of each of `classifications`' results: the class of each training record, int64 [N].

    It is -1 of a record that has no class or several, or one that cannot be answered. Raises CocaError as `classification`.
    """
    targets = {}
    for field, task in zip(_names(config), tasks, strict=True):
        own = [record_labels(fields.lookup(row, field)) for row in metadata]
        numbers = task.numbers
        known = store.class_names if field == config.dataset.label_field else None
        if config.dataset.class_names or known:  # of classes that are not among the held-out records, too
            distinct = sorted({*numbers, *(label for some in own for label in some)})
            _, numbers = _classes(distinct, config, known, ())
        classes = [{number for label in some for number in numbers.get(label, ())} for some in own]
        single = np.array([next(iter(some)) if len(some) == 1 else -1 for some in classes], np.int64)
        targets[task.name] = np.where(np.isin(single, task.candidate_classes), single, -1)
    return targets


def _names(config: EvaluationDatasetConfig) -> dict[str, str]:
    """The fields by which records are classified, with the names that the metrics give them."""
    return {field: field for field in config.classification.fields} or {config.dataset.label_field: "class"}


def record_labels(value: Any) -> tuple[str, ...]:
    """The labels that a metadata value holds: a name, a number, or several of them; none if it is empty."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(label for one in value for label in record_labels(one))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return () if value is None or value == "" else (str(value),)


def padded(targets: Sequence[Sequence[int]]) -> np.ndarray:
    """The right classes of each of M >= 1 records as a Classification's targets, int64 [M, K]."""
    table = np.full((len(targets), max(map(len, targets))), -1, np.int64)
    for row, own in zip(table, targets, strict=True):
        row[: len(own)] = own
    return table


def classification(
    name: str,
    labels: Sequence[tuple[str, ...]],
    config: EvaluationDatasetConfig,
    *,
    known: Sequence[str] | None = None,
    others: Iterable[str] = (),
    members: Mapping[str, Names] | None = None,
) -> Classification:
    """A zero-shot classification of the records that have a class.

    Args:
      labels: of each of the M records, as `record_labels` gives them.
      known: the class names by number, if the store has them.
      others: labels of other records, which are candidates too if nothing else lists the classes.
      members: by label, the names of the things that a class comprises; None: each class is one thing.

    Raises:
      CocaError: a file is missing or of another form, no record has a class, or the labels do not fit the names.
    """
    distinct = sorted({label for own in labels for label in own})
    if not distinct:
        raise CocaError(f"no record has a class for {name!r}: change dataset.label_field or classification.fields")
    shown = ", ".join(distinct[:3])
    names, numbers = _classes(distinct, config, known, others)
    targets = [sorted({number for label in own for number in numbers.get(label, ())}) for own in labels]
    indices = np.flatnonzero([bool(own) for own in targets])
    if not len(indices):
        none = f"none of the labels ({shown} …) is a class of {config.dataset.class_names or 'the dataset'}"
        raise CocaError(f"{none}: change dataset.class_names or classification.class_ids")
    if len(indices) < len(labels):
        _log.info("%s: %d of %d records have one of the classes", name, len(indices), len(labels))
    table = padded([targets[i] for i in indices])
    return Classification(
        name=name,
        labels=[own[0] for own in names],
        templates=class_files.prompts(config.dataset.prompts),
        indices=indices,
        targets=table[:, 0] if table.shape[1] == 1 else table,
        synonyms=names if any(len(own) > 1 for own in names) else (),
        candidates=np.unique(table[table >= 0]) if config.classification.class_subset else None,
        members=() if members is None else _members_by_class(name, names, numbers, members),
        numbers=numbers,
    )


def check_class_files(config: EvaluationDatasetConfig) -> None:
    """Raises CocaError if a file of a dataset's class names, class numbers or prompts is missing or of another form."""
    ids = config.classification.class_ids
    if config.dataset.class_names:
        names = class_files.class_names(config.dataset.class_names)
        if ids and isinstance(names, dict):
            class_files.keys(ids)
        elif ids:
            class_files.class_numbers(ids)
    class_files.prompts(config.dataset.prompts)


def _members_by_class(
    name: str, names: Sequence[Names], numbers: Mapping[str, tuple[int, ...]], members: Mapping[str, Names]
) -> list[Names]:
    """The members of each class; one that no label describes comprises itself."""
    table = list(names)
    for label, own in members.items():
        for number in numbers.get(label, ()):
            table[number] = own
    alone = sorted(names[i][0] for own in numbers.keys() - members.keys() for i in numbers[own])
    if alone:
        which = " or ".join(alone[:3])
        _log.warning("%s: no training record names the members of %s: its own label stands for it", name, which)
    return table


def _classes(
    distinct: Sequence[str], config: EvaluationDatasetConfig, known: Sequence[str] | None, others: Iterable[str]
) -> tuple[list[Names], dict[str, tuple[int, ...]]]:
    """The class names, and the numbers of the classes that a label stands for."""
    file, ids = config.dataset.class_names, config.classification.class_ids
    names: list[Names] | dict[str, Names] = [(name,) for name in known or ()]
    if file:
        names = class_files.class_names(file)
    if not names:
        every = sorted({*distinct, *others})
        # Names of files and folders have _ for spaces.
        return [(label.replace("_", " "),) for label in every], {label: (i,) for i, label in enumerate(every)}
    if isinstance(names, dict):
        if ids:  # ObjectNet: only the classes that its other file knows, by their names
            kept = class_files.keys(ids)
            names = {label: own for label, own in names.items() if kept & {label, *own}}
        return list(names.values()), {label: (i,) for i, label in enumerate(names)}
    return names, _numbers(distinct, names, file or "the dataset", ids)


def _numbers(distinct: Sequence[str], names: list[Names], source: str, ids: str) -> dict[str, tuple[int, ...]]:
    if ids:  # a negative number stands for no class
        numbers = {label: tuple(i for i in own if i >= 0) for label, own in class_files.class_numbers(ids).items()}
    elif all(label.isdecimal() for label in distinct):
        numbers = {label: (int(label),) for label in distinct}
    elif set(distinct) <= {name for own in names for name in own}:
        # Of equal names the first.
        numbers = {name: (i,) for i, own in reversed(list(enumerate(names))) for name in own}
    elif len(distinct) == len(names):  # folders of all classes, whose order is that of their names
        numbers = {label: (i,) for i, label in enumerate(distinct)}
        if not all(re.fullmatch(r"n\d{8}", label) for label in distinct):  # ImageNet's own, whose lists have this order
            pairs = ", ".join(f"{label} = {names[i][0]}" for i, label in enumerate(distinct[:3]))
            taken = "the labels in their sorted order are taken for the classes of %s (%s, …): "
            _log.warning(taken + "set classification.class_ids if that is wrong", source, pairs)
    else:
        problem = (
            f"{len(distinct)} labels ({', '.join(distinct[:3])} …) are no numbers of {source}'s {len(names)} classes"
        )
        raise CocaError(
            f"{problem}: set classification.class_ids to a file, or folder of class folders, with the numbers"
        )
    highest = max((number for own in numbers.values() for number in own), default=0)
    if highest >= len(names):
        problem = f"a label has the class number {highest}, but {source} names {len(names)} classes"
        raise CocaError(f"{problem}: set dataset.class_names to the dataset's own list")
    return numbers


def _other_labels(config: EvaluationDatasetConfig, names: Iterable[str]) -> dict[str, set[str]]:
    """For each field the labels among the records of `candidate_files`."""
    dataset = dataclasses.replace(config.dataset, evaluation_files=config.classification.candidate_files)
    labels: dict[str, set[str]] = {field: set() for field in names}
    for row in _metadata(dataclasses.replace(config, dataset=dataset), "evaluation"):
        for field, own in labels.items():
            own.update(record_labels(fields.lookup(row, field)))
    return labels


def _members(name: str, config: EvaluationDatasetConfig, classified: Sequence[str]) -> dict[str, dict[str, Names]]:
    """For each field, by its labels: the values of `described_by` among the training records with that label."""
    described_by = config.classification.described_by
    if not described_by or not classified:
        return {}
    members: dict[str, dict[str, set[str]]] = {field: {} for field in classified}
    for row in _metadata(config, "train"):
        values = {label.replace("_", " ") for label in record_labels(fields.lookup(row, described_by))}
        for field, own in members.items():
            for label in record_labels(fields.lookup(row, field)) if values else ():
                own.setdefault(label, set()).update(values)
    if not any(members.values()):
        problem = f"no training record of {config.dataset.path} has both {described_by!r} and a class"
        raise CocaError(f"{name}: {problem}: change classification.described_by")
    return {field: {label: tuple(sorted(values)) for label, values in own.items()} for field, own in members.items()}


def _metadata(config: EvaluationDatasetConfig, split: str) -> Iterator[Mapping[str, Any]]:
    """The metadata of other records of the dataset."""
    # With a label field, records without captions count too.
    label = config.dataset.label_field or next(iter(config.classification.fields), "")
    store = open_records(dataclasses.replace(config.dataset, class_names="", only=(), label_field=label), split)
    return (text.metadata for _, text in each_text(store, range(len(store))) if not isinstance(text, BadRecord))
