"""The classifications that an evaluation asks of a set, as its records and those beside it have the classes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, RecordStore, each_text
from coca_jax.errors import CocaError
from coca_jax.evaluation import labels as classes
from coca_jax.evaluation.dataset import Classification


def classifications(
    name: str, asked: EvaluationDatasetConfig, store: RecordStore, metadata: Sequence[Mapping[str, Any]]
) -> tuple[Classification, ...]:
    """One for each of `classify`, or that by `label_field`; none where the set's tasks ask for none.

    Args:
      name: of the set, for errors.
      asked: what is asked of it.
      store: its records.
      metadata: of those that are evaluated.

    Raises:
      CocaError: see `classes.classification`; or nothing describes the classes as is asked.
    """
    if not {"classification", "likelihood_classification"}.intersection(asked.tasks):
        return ()
    asked_for = {field: field for field in asked.classification.fields} or {asked.dataset.label_field: "class"}
    more = asked.classification.candidate_files and not asked.dataset.class_names
    others = _other_labels(asked, tuple(asked_for)) if more else {}
    members = _members(name, asked, [field for field in asked_for if field != asked.classification.described_by])
    found = []
    for field, spoken in asked_for.items():
        labels = [classes.labels_in(fields.lookup(row, field)) for row in metadata]
        known = store.class_names if field == asked.dataset.label_field else None
        try:
            found.append(
                classes.classification(
                    spoken, labels, asked, known=known, others=others.get(field, ()), members=members.get(field)
                )
            )
        except CocaError as error:
            raise CocaError(f"{name}: {error}") from None
    return tuple(found)


def _other_labels(asked: EvaluationDatasetConfig, names: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {field: set() for field in names}
    dataset = dataclasses.replace(asked.dataset, evaluation_files=asked.classification.candidate_files)
    for row in _rows(dataclasses.replace(asked, dataset=dataset), "evaluation"):
        for field, labels in found.items():
            labels.update(classes.labels_in(fields.lookup(row, field)))
    return found


def _members(
    name: str, asked: EvaluationDatasetConfig, classified: Sequence[str]
) -> dict[str, dict[str, classes.Names]]:
    """For each field, by its labels: what the training records with that label are called in `described_by`."""
    described_by = asked.classification.described_by
    if not described_by or not classified:
        return {}
    found: dict[str, dict[str, set[str]]] = {field: {} for field in classified}
    for row in _rows(asked, "train"):
        said = {label.replace("_", " ") for label in classes.labels_in(fields.lookup(row, described_by))}
        for field, members in found.items():
            for label in classes.labels_in(fields.lookup(row, field)) if said else ():
                members.setdefault(label, set()).update(said)
    if not any(found.values()):
        raise CocaError(
            f"{name}: no training record of {asked.dataset.path} has both {described_by!r} and a class: "
            "change classification.described_by"
        )
    return {field: {label: tuple(sorted(said)) for label, said in members.items()} for field, members in found.items()}


def _rows(asked: EvaluationDatasetConfig, split: str) -> Iterator[Mapping[str, Any]]:
    """The metadata of other records of the set."""
    label = asked.label_field or next(iter(asked.classify), "")  # with one, records without captions count too
    store = records.open_records(dataclasses.replace(asked.dataset, class_names="", only=(), label_field=label), split)
    return (said.metadata for _, said in each_text(store, range(len(store))) if not isinstance(said, BadRecord))
