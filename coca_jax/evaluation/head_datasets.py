"""Evaluation datasets for the head of an adapted run: examples with their class, or with a question and its answers."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import Config, EvaluationDatasetConfig
from coca_jax.data.digit_scenes.tasks import CLASSES, task_scene
from coca_jax.data.records import fields
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord, RecordStore, RecordText, each_text
from coca_jax.data.text.answers import normalized
from coca_jax.data.text.captions import Texts, without_labels
from coca_jax.data.text.classes import answers, class_number, only_class
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import Classification, EvaluationDataset, Images, StoredImages, spread
from coca_jax.evaluation.labels import padded, record_labels

HEAD_TASKS = ("head_classification", "vqa")
_TEXT_NAMES = {"vqa": "question", "entailment": "hypothesis", "pairs": "statement"}
_log = logging.getLogger(__name__)
_SCENES = 1_000  # if the config does not say how many


@dataclasses.dataclass(frozen=True)
class _Example:
    """The ground truth of one example."""

    text: str
    label: int  # the number of its class; -1: none of the run's (of questions, or if it counts for other fields alone)
    answers: tuple[str, ...] = ()
    kind: str = ""
    question_id: int | None = None
    name: str = ""  # of its class
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the fields of coarser classes


def head_task(config: Config) -> str:
    """The evaluation task of a run with a head."""
    return "vqa" if config.objective.name == "vqa" else "head_classification"


def open_head_dataset(
    name: str, config: EvaluationDatasetConfig, run: Config, classes: Sequence[str]
) -> EvaluationDataset:
    """The held-out examples of a dataset, for the head of a run with these classes.

    Raises:
      CocaError: the run has no such task, the records cannot be found, or none has a class or a question.
    """
    wanted = head_task(run)
    if not run.objective.has_head or set(config.tasks) & set(HEAD_TASKS) != {wanted}:
        todo = f"set tasks to ('{wanted}',)" if run.objective.has_head else "evaluate an adapted run"
        raise CocaError(f"the objective {run.objective.name} is not evaluated by {' and '.join(config.tasks)}: {todo}")
    is_of_pixels = run.objective.name == "classification" and run.model.image.kind != "precomputed"
    if config.dataset.evaluation_views > 1 and not is_of_pixels:
        todo = "leave evaluation_clips and evaluation_crops out"
        raise CocaError(f"only images and clips that are classified alone have several views: {todo}")
    images: Images
    unreadable, coarser = Counter[str](), tuple[Classification, ...]()
    if config.dataset.format == "digit_scenes":
        images, examples = _scenes(config, run, classes)
    else:
        images, examples, unreadable = _stored(config, run, classes)
        coarser = _coarser(config, [one.metadata for one in examples])
    targets = np.array([one.label for one in examples], np.int64)
    known = np.flatnonzero(targets >= 0)
    own = Classification("class", classes, ("{}",), known, targets[known])
    is_vqa = run.objective.name == "vqa"
    ids = [one.question_id for one in examples if one.question_id is not None]
    return EvaluationDataset(
        name=name,
        config=config,
        images=images,
        captions=[(one.name,) for one in examples],
        classifications=() if is_vqa else (own, *coarser),
        texts=[one.text for one in examples] if run.objective.reads_text else (),
        text_name=_TEXT_NAMES.get(run.objective.name, "text"),
        kinds=[one.kind for one in examples] if any(one.kind for one in examples) else (),
        answers=[one.answers for one in examples] if is_vqa and any(one.answers for one in examples) else (),
        question_ids=ids if is_vqa and len(set(ids)) == len(examples) else (),
        unreadable=unreadable,
    )


def _scenes(config: EvaluationDatasetConfig, run: Config, classes: Sequence[str]) -> tuple[np.ndarray, list[_Example]]:
    task, size = config.dataset.task, run.model.image.size
    names = CLASSES.get(task, ())
    known = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in names if name not in known]
    if not names or (unknown and run.objective.name != "vqa"):
        what = f"has the class {unknown[0]!r}, which the run was not trained on" if names else "has no classes"
        raise CocaError(f"the task {task} of digit_scenes {what}: change dataset.task")
    made = [task_scene(task, index, "evaluation", size) for index in range(config.examples or _SCENES)]
    truths = [names[one.label] for one in made]
    has_answers = run.objective.name == "vqa"
    examples = [
        _Example(one.text, known.get(own, -1), (own,), one.kind, name="" if has_answers else own)
        for one, own in zip(made, truths, strict=True)
    ]
    return np.stack([one.image for one in made]), examples


def _stored(
    config: EvaluationDatasetConfig, run: Config, classes: Sequence[str]
) -> tuple[StoredImages, list[_Example], Counter[str]]:
    store = open_records(config.dataset, "evaluation")
    reader = _Reader(config, run, classes, store)
    indices, examples, unreadable = [], [], Counter(store.census.damage)
    for index, text in each_text(store, spread(len(store), config.examples or len(store))):
        try:
            if isinstance(text, BadRecord):
                raise text
            examples.append(reader.example(text))
            indices.append(index)
        except BadRecord as error:
            unreadable[error.cause] += 1
            _log.warning("held-out record %s left out: %s", store.name(index), error)
    if run.objective.name == "vqa" and any(one.answers for one in examples):  # else none has: they are for a server
        answered = [row for row, one in enumerate(examples) if one.answers]
        unreadable += Counter({"no answer": len(examples) - len(answered)})
        indices, examples = [indices[row] for row in answered], [examples[row] for row in answered]
    if not examples:
        ((cause, times),) = unreadable.most_common(1)
        raise CocaError(
            f"none of the held-out records of {config.dataset.path} can be used ({times:,} {cause}): change the dataset's keys"
        )
    pairs = run.objective.name == "pairs"
    return StoredImages(store, np.array(indices), run.model, config.dataset, pairs), examples, unreadable


def _coarser(config: EvaluationDatasetConfig, metadata: Sequence[Mapping[str, Any]]) -> tuple[Classification, ...]:
    """One by each of `classification.fields`, of the records with this metadata.

    The classes are the field's values among the training records, each with the classes of the head that it comprises. A
    record without any of them takes no part. Raises CocaError if no record has one.
    """
    if not config.classification.fields:
        return ()
    members: dict[str, dict[str, set[str]]] = {field: {} for field in config.classification.fields}
    training = open_records(dataclasses.replace(config.dataset, only=()), "train")
    texts = Texts(config.dataset, training)
    for _, record in each_text(training, range(len(training))):
        try:
            if isinstance(record, BadRecord):
                raise record
            own = only_class(texts.labels(record.metadata))
        except BadRecord:
            continue  # it tells nothing of any class
        for field, by_value in members.items():
            for value in record_labels(fields.lookup(record.metadata, field)):
                by_value.setdefault(value, set()).add(own)
    results = []
    for field, by_value in members.items():
        labels = sorted(by_value)
        numbers = {value: number for number, value in enumerate(labels)}
        each = [sorted({*record_labels(fields.lookup(row, field))} & by_value.keys()) for row in metadata]
        indices = np.flatnonzero([bool(own) for own in each])
        if not len(indices):
            problem = f"no held-out record has a value of {field!r} that a training record has"
            raise CocaError(f"{problem}: change classification.fields")
        targets = padded([[numbers[value] for value in each[index]] for index in indices])
        comprised = [tuple(sorted(by_value[label])) for label in labels]
        results.append(Classification(field, labels, ("{}",), indices, targets, members=comprised))
    return tuple(results)


class _Reader:
    """Reads the ground truth of stored records."""

    def __init__(self, config: EvaluationDatasetConfig, run: Config, classes: Sequence[str], store: RecordStore):
        self._dataset, self._objective, self._fields = config.dataset, run.objective, config.classification.fields
        self._labels, self._texts = Texts(config.dataset, store), Texts(without_labels(config.dataset), store)
        self._classes = {name: number for number, name in enumerate(classes)}

    def example(self, record: RecordText) -> _Example:
        """Raises BadRecord if it has no class, no text, or a class that the run does not know."""
        text = ""
        if self._objective.reads_text:
            text = self._texts.all(record)[0]
        if self._objective.name == "vqa":
            given, number = answers(record.metadata, self._dataset), record.metadata.get("question_id")
            return _Example(
                text, -1, given, str(record.metadata.get("answer_type", _answer_type(given))), _whole(number)
            )
        name = only_class(self._labels.labels(record.metadata))
        if not self._fields:
            return _Example(text, class_number([name], self._classes), name=name)
        others = {field: fields.lookup(record.metadata, field) for field in self._fields}
        return _Example(text, self._classes.get(name, -1), name=name, metadata=others)


def _answer_type(given: Sequence[str]) -> str:
    """As VQA v2 divides answers, by the most frequent one: yes/no, number, other; "" if there is none."""
    if not given:
        return ""
    answer = normalized(Counter(given).most_common(1)[0][0])
    return "yes/no" if answer in ("yes", "no") else "number" if answer.isdecimal() else "other"


def _whole(value: Any) -> int | None:
    return int(value) if str(value).isdecimal() else None
