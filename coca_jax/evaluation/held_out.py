"""A store's held-out records as an `EvaluationSet`: texts and classes at once, pictures when they are needed."""

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig, EvaluationDatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, RecordStore, RecordText, each_text
from coca_jax.data.text import class_names as class_files
from coca_jax.data.text.captions import Texts
from coca_jax.errors import CocaError
from coca_jax.evaluation import held_out_classes
from coca_jax.evaluation import labels as classes
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.stored_pictures import StoredPictures

_log = logging.getLogger(__name__)
_OWN_CLASSES = "name"  # metadata by which a run's own records are classified, where all of them have it
_SENTENCES = 6


@dataclasses.dataclass(frozen=True)
class _Said:
    """What the records say, without their pictures."""

    indices: np.ndarray
    captions: list[tuple[str, ...]]
    metadata: list[Mapping[str, Any]]
    unreadable: Counter[str]


def own_set(name: str, source: DatasetConfig, examples: int, size: int) -> EvaluationSet:
    """The held-out records of a training run's set, evenly spread over the store.

    Raises:
      CocaError: there are none, or none can be read.
    """
    store = records.open_records(source, "evaluation")
    found = _said(store, source, examples, Texts(source, store).all)
    pictures: np.ndarray | StoredPictures = StoredPictures(store, found.indices, size, source)
    if pictures.fit_in_memory:  # read now: before a training run, and not again at each of its evaluations
        pictures, found = _readable(pictures, found, source)
    names = [classes.labels_in(row.get(_OWN_CLASSES)) for row in found.metadata]
    asked, others = EvaluationDatasetConfig(), ()
    if source.label_field:
        texts = Texts(source, store)
        others = texts.class_names  # of few records not all classes occur, but all are candidates
        names, asked = (
            [tuple(texts.labels(row)) for row in found.metadata],
            EvaluationDatasetConfig(dataset=DatasetConfig(prompts=texts.prompts)),
        )
    classifications: tuple[Classification, ...] = ()
    if all(len(own) == 1 for own in names) and len(set(names)) > 1:
        classifications = (classes.classification(source.label_field or _OWN_CLASSES, names, asked, others=others),)
    return EvaluationSet(
        name=name,
        images=pictures,
        captions=found.captions,
        meaning=plain_meaning,
        classifications=classifications,
        sentences=_spread(found.captions),
        unreadable=found.unreadable,
    )


def named_set(name: str, asked: EvaluationDatasetConfig, size: int, where: str = "datasets") -> EvaluationSet:
    """A set of `EvaluationConfig.datasets`; `where` is their place in the config.

    Raises:
      CocaError: its records or its classes' files cannot be found or understood; where the set says which command gets
        its records, so does the error.
    """
    uncaptioned = asked.tasks == ("captioning",) and not asked.captioning.scores  # only written for a server
    label_field = asked.captioning.image_id if uncaptioned else asked.dataset.label_field
    source = dataclasses.replace(asked.dataset, class_names="", label_field=label_field)
    with _told(name, asked, where):
        store = records.open_records(source, "evaluation")
    found = _said(store, source, asked.examples, _labels(label_field) if label_field else Texts(source, store).all)
    ids = _image_ids(name, found, asked, required=uncaptioned)
    found.unreadable.update(store.damage)
    captions = found.captions
    classifications = held_out_classes.classifications(name, asked, store, found.metadata)
    if uncaptioned:
        captions = [("",)] * len(captions)
    if asked.dataset.label_field and classifications:
        captions = _spoken(captions, classifications[0])
    return EvaluationSet(
        name=name,
        images=StoredPictures(store, found.indices, size, source),
        captions=captions,
        meaning=plain_meaning,
        classifications=classifications,
        sentences=() if asked.dataset.label_field or "retrieval" not in asked.tasks else _spread(captions),
        long_text=asked.long_text,
        asked=asked,
        image_ids=ids,
        unreadable=found.unreadable,
    )


def check(name: str, asked: EvaluationDatasetConfig, where: str = "datasets") -> None:
    """Raises CocaError, as `named_set` would, for what is wrong with a set as far as that shows without its records."""
    with _told(name, asked, where):
        records.check_place(asked.dataset, "evaluation", asked.classification.fields or (asked.dataset.label_field,))


def check_class_files(asked: EvaluationDatasetConfig) -> None:
    """Raises CocaError where names, numbers or prompts of a set's classes lie in files that do not hold them."""
    class_ids = asked.classification.class_ids
    if asked.dataset.class_names:
        names = class_files.class_names(asked.dataset.class_names)
        if class_ids:
            (class_files.keys if isinstance(names, dict) else class_files.class_numbers)(class_ids)
    class_files.templates(asked.dataset.prompts)


@contextlib.contextmanager
def _told(name: str, asked: EvaluationDatasetConfig, where: str) -> Iterator[None]:
    """An error names the set, its own keys of the config, and how to get the records."""
    try:
        yield
    except CocaError as error:
        get = f" (this gets the records: {asked.download})" if asked.download else ""
        own = str(error).replace("--config.data.", f"--config.{where}.{name}.")
        raise CocaError(f"{name}: {own}{get}") from None


def plain_meaning(text: str) -> str | None:
    """The canonical form of free text: two texts agree where only case and spaces differ; None for no text."""
    return " ".join(text.casefold().split()) or None


def _said(
    store: RecordStore,
    source: DatasetConfig,
    examples: int,
    texts_of: Callable[[RecordText], tuple[str, ...]],
) -> _Said:
    wanted = min(examples, len(store)) if examples else len(store)
    chosen = np.unique(np.linspace(0, len(store) - 1, wanted).round().astype(np.int64))
    found = _Said(chosen, [], [], Counter())
    kept = []
    for index, said in each_text(store, chosen.tolist()):
        try:
            if isinstance(said, BadRecord):
                raise said
            captions = texts_of(said)
        except BadRecord as error:
            found.unreadable[error.cause] += 1
            _log.warning("held-out record %s left out: %s", store.name(index), error)
            continue
        kept.append(index)
        found.captions.append(captions)
        found.metadata.append(said.metadata)
    if not kept:
        raise CocaError(_none_of(len(chosen), source, found.unreadable))
    return dataclasses.replace(found, indices=np.array(kept, np.int64))


def _none_of(count: int, source: DatasetConfig, causes: Counter[str]) -> str:
    ((cause, times),) = causes.most_common(1)
    return f"none of the {count} held-out records of {source.path} can be read ({times:,} {cause}): replace them"


def _readable(pictures: StoredPictures, found: _Said, source: DatasetConfig) -> tuple[np.ndarray, _Said]:
    """The pictures themselves, and what is left of the records without those that cannot be read."""
    every = pictures[np.arange(len(pictures))]
    kept = [row for row in range(len(every)) if row not in pictures.unreadable]
    if not kept:
        raise CocaError(_none_of(len(every), source, Counter(pictures.unreadable.values())))
    unreadable = found.unreadable + Counter(pictures.unreadable.values())
    captions, metadata = [found.captions[row] for row in kept], [found.metadata[row] for row in kept]
    return every[kept], _Said(found.indices[kept], captions, metadata, unreadable)


def _labels(field: str) -> Callable[[RecordText], tuple[str, ...]]:
    """A function that gives a record's labels as its text: their class names come later, from files with keys."""

    def of(said: RecordText) -> tuple[str, ...]:
        labels = classes.labels_in(fields.lookup(said.metadata, field))
        if not labels:
            raise BadRecord("no label")
        return (", ".join(labels),)

    return of


def _spoken(captions: Sequence[tuple[str, ...]], task: Classification) -> list[tuple[str, ...]]:
    """Names of classes instead of their numbers, where pictures have nothing but a label."""
    spoken, targets = list(captions), task.targets.reshape(len(task.indices), -1)
    for row, target in zip(task.indices.tolist(), targets[:, 0].tolist(), strict=True):
        spoken[row] = (task.labels[target],)
    return spoken


def _image_ids(name: str, found: _Said, asked: EvaluationDatasetConfig, required: bool) -> list[int]:
    """The images' numbers; empty where not every one has its own.

    Raises:
      CocaError: they are `required`, for a file of captions is all that is asked for.
    """
    values = [fields.lookup(row, asked.captioning.image_id) for row in found.metadata]
    missing = values.count(None) + (found.unreadable["no label"] if required else 0)
    bad = [value for value in values if value is not None and not str(value).isdecimal()]
    twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
    if not (missing or bad or twice):
        return [int(value) for value in values]
    if missing:
        why = f"{missing:,} records have no {asked.captioning.image_id!r}"
    else:
        why = f"{bad[0]!r} is no whole number" if bad else f"{twice[0]} is the number of several pictures"
    if required:
        raise CocaError(
            f"{name}: captions cannot be written for a server, for {why}: give each picture its own number "
            "and name that metadata as captioning.image_id"
        )
    if missing < len(values) and "captioning" in asked.tasks:
        _log.warning("%s: no file of captions is written for COCO's server, for %s", name, why)
    return []


def _spread(captions: Sequence[Sequence[str]]) -> tuple[str, ...]:
    chosen = np.unique(np.linspace(0, len(captions) - 1, _SENTENCES).round().astype(int))
    return tuple(captions[i][0] for i in chosen)
