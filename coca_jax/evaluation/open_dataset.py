"""Evaluation datasets opened from a run's own data config, and from the evaluations that a config names."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import (
    CaptioningConfig,
    Config,
    DatasetConfig,
    EvaluationConfig,
    EvaluationDatasetConfig,
)
from coca_jax.data.records import fields
from coca_jax.data.records.open import EmptySplit, check_place, open_records
from coca_jax.data.records.record import BadRecord, RecordStore, RecordText, each_text
from coca_jax.data.text.captions import Texts
from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError, DataError
from coca_jax.evaluation import labels
from coca_jax.evaluation.dataset import Classification, EvaluationDataset, PendingDataset, StoredImages, spread
from coca_jax.evaluation.digit_scenes import open_digit_scenes
from coca_jax.evaluation.head_datasets import HEAD_TASKS, head_task, open_head_dataset
from coca_jax.evaluation.training_images import stored_training_images

_log = logging.getLogger(__name__)
_NAME = "name"  # metadata by which a run's own records are classified, if all of them have it
_QUERIES = 6
_FEW = 10  # with fewer held-out records, one changes an accuracy by more than ten points


def run_datasets(config: Config, classes: Sequence[str] = ()) -> list[EvaluationDataset]:
    """The held-out records of a run's sources, and the datasets of `config.evaluation`, all open; `classes`: of its head.

    They are opened before training, so that errors do not show hours later, and evaluated many times. Raises CocaError if
    records cannot be found, no held-out image can be read, or the hosts see different records.
    """
    opened: list[EvaluationDataset] = []
    errors: list[CocaError] = []
    for name, source in config.data.sources.items():
        if not source.dataset.holds_out:
            _log.info("%s is not evaluated: all of its records train, since its holdout is 0", name)
            continue
        try:
            opened.append(_open(name, _own_config(config, source.dataset), config, classes, own=True))
            _warn_of_few(config, name, len(opened[-1].images))
        except CocaError as error:
            if isinstance(error, EmptySplit):  # a share of few records may hold out none of them
                fatal = bool(source.dataset.evaluation_files or source.dataset.holdout_where)
            else:  # a DataError is an outage, not a dataset without records
                fatal = not config.data.mixture or isinstance(error, DataError)
                errors.append(error)
            if fatal:
                raise
            _log.warning("%s is trained on and not evaluated: %s", name, error)
    if errors and not opened:
        raise errors[0]
    opened += [one.open() for one in named_datasets(config.evaluation, config, classes, "evaluation.datasets")]
    check_same_datasets(opened)
    return opened


def _warn_of_few(config: Config, name: str, count: int) -> None:
    dataset = config.data.sources[name].dataset
    by_share = not (dataset.holdout_where or dataset.evaluation_files or dataset.format == "digit_scenes")
    if by_share and count < min(_FEW, config.evaluation.examples) and hosts.is_first():
        key = f"{config.data.key(name)}.dataset.holdout"
        few = "%s is evaluated on %d of its records, too few to trust the figures: raise %s, such as to 0.3"
        _log.warning(few, name, count, key)


def named_datasets(
    config: EvaluationConfig, run: Config, classes: Sequence[str] = (), where: str = "datasets"
) -> list[PendingDataset]:
    """The datasets of an `EvaluationConfig`, of which no record is read yet, for a run with these classes of its head.

    `where` is their place in the config.

    Raises CocaError if the place of a dataset's records or a file of its classes is missing.
    """
    pending = []
    for name, one in config.datasets.items():
        if one.dataset.format != "digit_scenes":
            with _named_errors(name, one, where):
                heads = (one.dataset.label_field,) if "head_classification" in one.tasks else ()
                check_place(
                    one.dataset, "evaluation", (*one.classification.fields, *heads) or (one.dataset.label_field,)
                )
            labels.check_class_files(one)
        pending.append(PendingDataset(name, one, functools.partial(_open, name, one, run, classes, where=where)))
    return pending


def check_same_datasets(datasets: Sequence[EvaluationDataset]) -> None:
    """Raises CocaError on every process if not all see the same held-out records."""
    digest = hashlib.sha256()
    for dataset in datasets:
        digest.update(json.dumps([dataset.name, dataset.images.shape, list(dataset.image_ids)]).encode())
        for texts in (dataset.captions, dataset.answers):
            digest.update(json.dumps([list(own) for own in texts]).encode())
        digest.update(json.dumps(list(dataset.texts)).encode())
        for task in dataset.classifications:
            digest.update(json.dumps([task.name, list(task.labels), [list(own) for own in task.members]]).encode())
            digest.update(np.asarray(task.indices, np.int64).tobytes() + np.asarray(task.targets, np.int64).tobytes())
        for targets in dataset.training.targets.values() if dataset.training else ():
            digest.update(targets.tobytes())
    problem = "the hosts see different held-out records: give all of them the same evaluation files"
    hosts.check_same(digest.hexdigest(), problem)


def _own_config(config: Config, dataset: DatasetConfig) -> EvaluationDatasetConfig:
    """The evaluation of a run's own source: every task, with scores by references unless its captions have a grammar."""
    # The grammar of digit scenes tells right captions from wrong ones.
    scores = () if dataset.format == "digit_scenes" else CaptioningConfig().scores
    return EvaluationDatasetConfig(
        dataset=dataset,
        tasks=_own_tasks(config, dataset),
        examples=config.evaluation.examples,
        long_text=config.data.long_text,
        captioning=CaptioningConfig(scores=scores, image_id=""),  # servers know none of a run's own images
    )


def _own_tasks(config: Config, dataset: DatasetConfig) -> tuple[str, ...]:
    if config.objective.has_head:
        return (head_task(config),)
    if dataset.frames:
        return ("video_retrieval", "captioning")
    return ("retrieval", "classification", "captioning")


def _open(
    name: str,
    config: EvaluationDatasetConfig,
    run: Config,
    classes: Sequence[str] = (),
    *,
    where: str = "datasets",
    own: bool = False,
) -> EvaluationDataset:
    """Reads the texts of the held-out records; CocaError if they or their classes cannot be found or understood.

    If they are a training run's `own`, the texts of classes are training's prompts, records with names are classified by
    them, and the images are read now if they fit into memory.
    """
    if set(config.tasks) & set(HEAD_TASKS):
        with contextlib.nullcontext() if own else _named_errors(name, config, where):
            dataset = open_head_dataset(name, config, run, classes)
        if own and isinstance(dataset.images, StoredImages):
            _preload(dataset.images, config.dataset)
        return dataset
    if config.dataset.format == "digit_scenes":
        return open_digit_scenes(name, config, run.model.image.size)
    for_server = _is_for_server(config)
    label_field = config.captioning.image_id if for_server else config.dataset.label_field
    class_names = config.dataset.class_names if own else ""
    source = dataclasses.replace(config.dataset, label_field=label_field, class_names=class_names)
    with contextlib.nullcontext() if own else _named_errors(name, config, where):
        store = open_records(source, "evaluation")
    reader = Texts(source, store) if own or not source.label_field else None
    unreadable: Counter[str] = Counter()
    indices, captions, metadata = _read_texts(store, source, config.examples, reader, unreadable)
    image_ids = _image_ids(name, metadata, config, unreadable["no label"] if for_server else 0)
    if own and reader is not None:
        classifications = _own_classifications(config, metadata, reader)
    else:
        unreadable.update(store.census.damage)
        classifications = labels.classifications(name, config, store, metadata)
    if for_server:
        captions = [("",)] * len(captions)
    elif source.label_field and classifications and not own:
        captions = _class_names(captions, classifications[0])
    ranked = "retrieval" in config.tasks and (own or not source.label_field)
    images = StoredImages(store, np.array(indices, np.int64), run.model, source)
    if own:
        _preload(images, source)
    with _named_errors(name, config, where):
        training = stored_training_images(config, run.model, classifications)
    return EvaluationDataset(
        name=name,
        config=config,
        images=images,
        captions=captions,
        classifications=classifications,
        queries=[captions[i][0] for i in spread(len(captions), _QUERIES)] if ranked else (),
        image_ids=image_ids,
        unreadable=unreadable,
        training=training,
    )


def _preload(images: StoredImages, source: DatasetConfig) -> None:
    """Reads the images now if they fit into memory; CocaError if none can be read."""
    images.preload()
    if len(images.unreadable) == len(images):
        raise CocaError(_none_readable(len(images), source, Counter(images.unreadable.values())))


def _own_classifications(
    config: EvaluationDatasetConfig, metadata: Sequence[Mapping[str, Any]], reader: Texts
) -> tuple[Classification, ...]:
    """By the labels of training, or by name; none unless each record has one class, and not all the same."""
    field = config.dataset.label_field
    names = [tuple(reader.labels(row)) if field else labels.record_labels(row.get(_NAME)) for row in metadata]
    if len(set(names)) < 2 or any(len(own) != 1 for own in names):
        return ()
    prompts = reader.prompts or config.dataset.prompts
    named = dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, class_names="", prompts=prompts))
    # Of few records not all classes occur, but all are candidates.
    return (labels.classification(field or _NAME, names, named, others=reader.class_names),)


@contextlib.contextmanager
def _named_errors(name: str, config: EvaluationDatasetConfig, where: str) -> Iterator[None]:
    """Makes errors name the dataset, its own keys of the config, and how to get the records."""
    try:
        yield
    except CocaError as error:
        get = f" (this gets the records: {config.download})" if config.download else ""
        message = str(error).replace("--config.data.", f"--config.{where}.{name}.")
        raise CocaError(f"{name}: {message}{get}") from None


def _read_texts(
    store: RecordStore, source: DatasetConfig, examples: int, reader: Texts | None, unreadable: Counter[str]
) -> tuple[list[int], list[tuple[str, ...]], list[Mapping[str, Any]]]:
    """Indices, captions and metadata of records that are spread evenly over the store; counts those that are unreadable.

    Without a reader the captions are the records' labels.
    """
    chosen = spread(len(store), examples or len(store))
    indices, captions, metadata = [], [], []
    for index, text in each_text(store, chosen):
        try:
            if isinstance(text, BadRecord):
                raise text
            own = reader.all(text) if reader else _labels(text, source.label_field)
        except BadRecord as error:
            unreadable[error.cause] += 1
            _log.warning("held-out record %s left out: %s", store.name(index), error)
            continue
        indices.append(index)
        captions.append(own)
        metadata.append(text.metadata)
    if not indices:
        raise CocaError(_none_readable(len(chosen), source, unreadable))
    return indices, captions, metadata


def _labels(text: RecordText, label_field: str) -> tuple[str, ...]:
    own = labels.record_labels(fields.lookup(text.metadata, label_field))
    if not own:
        raise BadRecord("no label")
    return (", ".join(own),)


def _none_readable(count: int, source: DatasetConfig, causes: Counter[str]) -> str:
    ((cause, times),) = causes.most_common(1)
    return f"none of the {count} held-out records of {source.path} can be read ({times:,} {cause}): replace them"


def _class_names(captions: Sequence[tuple[str, ...]], task: Classification) -> list[tuple[str, ...]]:
    """Class names instead of their numbers, for images that have nothing but a label."""
    named = list(captions)
    for row, target in zip(task.indices.tolist(), task.right_classes[:, 0].tolist(), strict=True):
        named[row] = (task.labels[target],)
    return named


def _is_for_server(config: EvaluationDatasetConfig) -> bool:
    """Whether a file of captions for a server is all that the config asks for: then records need no captions."""
    return config.tasks == ("captioning",) and not config.captioning.scores


def _image_ids(
    name: str, metadata: Sequence[Mapping[str, Any]], config: EvaluationDatasetConfig, left_out: int
) -> list[int]:
    """The images' numbers; empty if not every one has its own, or CocaError if a server needs them."""
    key = config.captioning.image_id
    if not key:
        return []
    values = [fields.lookup(row, key) for row in metadata]
    missing = values.count(None) + left_out
    bad = [value for value in values if value is not None and not str(value).isdecimal()]
    twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
    if not (missing or bad or twice):
        return [int(value) for value in values]
    if missing:
        why = f"{missing:,} records have no {key!r}"
    else:
        why = f"{bad[0]!r} is no whole number" if bad else f"{twice[0]} is the number of several images"
    if _is_for_server(config):
        problem = f"{name}: captions cannot be written for a server, for {why}"
        raise CocaError(f"{problem}: give each image its own number and name that metadata as captioning.image_id")
    if missing < len(values) and "captioning" in config.tasks:
        _log.warning("%s: no file of captions is written for COCO's server, for %s", name, why)
    return []
