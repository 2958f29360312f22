"""Classes of a held-out set: from the labels that its records have to a `Classification`."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.text import class_names as class_files
from coca_jax.data.text.class_names import Names
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import Classification

_log = logging.getLogger(__name__)


def labels_in(value: Any) -> tuple[str, ...]:
    """What a record's metadata says of its class: a name, a number, or several of them; empty where it says nothing."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(label for one in value for label in labels_in(one))
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return () if value is None or value == "" else (str(value),)


def classification(
    name: str,
    labels: Sequence[tuple[str, ...]],
    asked: EvaluationDatasetConfig,
    *,
    known: Sequence[str] | None = None,
    others: Iterable[str] = (),
    members: Mapping[str, Names] | None = None,
) -> Classification:
    """A zero-shot classification of the records that have a class.

    Args:
      name: of the classification.
      labels: of each of the M records, as `labels_in` gives them.
      asked: where names, numbers and prompts come from.
      known: the classes' names by number, where the store knows them.
      others: labels of other records, which are candidates too where nothing else says what the classes are.
      members: by label, the names of what a class comprises; None: each class is one thing.

    Raises:
      CocaError: a file is missing or of another form, no record has a class, or the labels do not fit the names.
    """
    distinct = sorted({label for own in labels for label in own})
    if not distinct:
        raise CocaError(f"no record has a class for {name!r}: change label_field or classify of the set")
    names, numbers = _classes(distinct, asked, known, others)
    targets = [sorted({number for label in own for number in numbers.get(label, ())}) for own in labels]
    indices = np.flatnonzero([bool(own) for own in targets])
    if not len(indices):
        raise CocaError(
            f"none of the labels ({', '.join(distinct[:3])} …) is a class of "
            f"{asked.dataset.class_names or 'the set'}: change class_names or class_ids"
        )
    if len(indices) < len(labels):
        _log.info("%s: %d of %d records have a class that is asked for", name, len(indices), len(labels))
    table = np.full((len(indices), max(len(targets[i]) for i in indices)), -1, np.int64)
    for row, i in zip(table, indices, strict=True):
        row[: len(targets[i])] = targets[i]
    several = any(len(own) > 1 for own in names)
    return Classification(
        name=name,
        labels=[own[0] for own in names],
        templates=class_files.templates(asked.dataset.prompts),
        indices=indices,
        targets=table[:, 0] if table.shape[1] == 1 else table,
        synonyms=names if several else (),
        candidates=np.unique(table[table >= 0]) if asked.classification.class_subset else None,
        members=() if members is None else _members(name, names, numbers, members),
    )


def _members(
    name: str, names: Sequence[Names], numbers: Mapping[str, tuple[int, ...]], members: Mapping[str, Names]
) -> list[Names]:
    """What each class comprises; one that no label describes comprises itself."""
    found = list(names)
    for label, own in members.items():
        for number in numbers.get(label, ()):
            found[number] = own
    alone = [names[i][0] for own in numbers.keys() - members.keys() for i in numbers[own]]
    if alone:
        _log.warning(
            "%s: no training record says which members %s has: its own label stands for it",
            name,
            " or ".join(sorted(alone)[:3]),
        )
    return found


def _classes(
    distinct: Sequence[str], asked: EvaluationDatasetConfig, known: Sequence[str] | None, others: Iterable[str]
) -> tuple[list[Names], dict[str, tuple[int, ...]]]:
    """The classes' names, and the numbers of the classes that a label stands for."""
    given = class_files.class_names(asked.dataset.class_names) if asked.dataset.class_names else None
    if given is None and known:
        given = [(name,) for name in known]
    if given is None:
        every = sorted({*distinct, *others})
        # Names of files and folders have _ for spaces.
        return [(label.replace("_", " "),) for label in every], {label: (i,) for i, label in enumerate(every)}
    if isinstance(given, dict):
        if asked.classification.class_ids:  # ObjectNet: only the classes that its other file knows, by their names
            known_there = class_files.keys(asked.classification.class_ids)
            given = {label: names for label, names in given.items() if known_there & {label, *names}}
        return list(given.values()), {label: (i,) for i, label in enumerate(given)}
    return given, _numbers(distinct, given, asked)


def _numbers(distinct: Sequence[str], names: list[Names], asked: EvaluationDatasetConfig) -> dict[str, tuple[int, ...]]:
    source = asked.dataset.class_names or "the set"
    if asked.classification.class_ids:
        numbers = class_files.class_numbers(asked.classification.class_ids)
    elif all(label.isdecimal() for label in distinct):
        numbers = {label: (int(label),) for label in distinct}
    elif {label for label in distinct} <= {name for own in names for name in own}:
        numbers = {
            name: (i,) for i, own in reversed(list(enumerate(names))) for name in own
        }  # of equal names the first
    elif len(distinct) == len(names):  # folders of all classes, whose order is that of their names
        numbers = {label: (i,) for i, label in enumerate(distinct)}
        if not all(re.fullmatch(r"n\d{8}", label) for label in distinct):  # ImageNet's own, whose lists have this order
            pairs = ", ".join(f"{label} = {names[i][0]}" for i, label in enumerate(distinct[:3]))
            _log.warning(
                "the labels in their sorted order are taken for the classes of %s (%s, …): name class_ids if "
                "that is wrong",
                source,
                pairs,
            )
    else:
        raise CocaError(
            f"{len(distinct)} labels ({', '.join(distinct[:3])} …) are to be numbers of {source}'s "
            f"{len(names)} classes: name a file (or folder of class folders) with the number of each as class_ids"
        )
    highest = max((number for own in numbers.values() for number in own), default=0)
    if highest >= len(names):
        raise CocaError(
            f"a label has the class number {highest}, but {source} names {len(names)} classes: name the "
            "list that belongs to the set"
        )
    return numbers
