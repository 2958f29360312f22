"""The classes of a run with a head: their names, in the order of its outputs, and each record's class or answers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.digit_scenes.tasks import CLASSES
from coca_jax.data.records import fields
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord, RecordStore, each_text
from coca_jax.data.text.answers import most_frequent_answers, normalized
from coca_jax.data.text.captions import Texts
from coca_jax.errors import CocaError

_MOST_ANSWERS = 3_129  # of VQA v2 (paper §4.2.3)


def run_classes(config: Config) -> tuple[str, ...]:
    """The class names of a run's head, or for vqa the most frequent answers; empty for an objective without a head.

    Of each source those of `class_names` or of the store; otherwise all that occur among its training records, sorted,
    which are read for it.

    Raises:
      CocaError: the records or files cannot be read, none has a class, or `objective.head.classes` is another number.
    """
    objective = config.objective
    if not objective.has_head:
        return ()
    datasets = [source.dataset for source in config.data.sources.values()]
    if objective.name == "vqa":
        names = _answers(datasets, objective.head.classes or _MOST_ANSWERS)
    else:
        names = tuple(dict.fromkeys(name for dataset in datasets for name in _class_names(dataset)))
    wanted = objective.head.classes
    if wanted and len(names) != wanted and objective.name != "vqa":
        raise CocaError(
            f"objective.head.classes = {wanted}, but the data has {len(names)} classes: set it to 0 or that"
        )
    if len(names) < 2:
        found = "one class" if names else "no class"
        raise CocaError(f"the data has {found}, and a head needs two: change data.dataset.label_field")
    return names


def _class_names(dataset: DatasetConfig) -> Sequence[str]:
    if dataset.format == "digit_scenes":
        return CLASSES[dataset.task]
    store = open_records(dataset, "train")
    texts = Texts(dataset, store)
    if texts.class_names:
        return texts.class_names
    names: set[str] = set()
    for metadata in _metadata(store):
        try:
            names.add(only_class(texts.labels(metadata)))
        except BadRecord:  # the pipeline counts and names it
            continue
    return sorted(names)


def _answers(datasets: Sequence[DatasetConfig], most: int) -> tuple[str, ...]:
    """All answers of digit scenes, and those that most training questions have as their most frequent one."""
    drawn: list[str] = []
    chosen: list[str] = []
    for dataset in datasets:
        if dataset.format == "digit_scenes":
            drawn += CLASSES[dataset.task]
            continue
        for metadata in _metadata(open_records(dataset, "train")):
            given = answers(metadata, dataset)
            if given:
                chosen.append(Counter(map(normalized, given)).most_common(1)[0][0])
    found: dict[str, str] = {}
    for name in (*drawn, *most_frequent_answers(chosen, most)):
        found.setdefault(normalized(name), name)  # "two" of the scenes is "2" of the others
    return tuple(found.values())[:most]


def only_class(names: Sequence[str]) -> str:
    """A record's class, of its class names; raises BadRecord if it has several, which a head cannot learn."""
    if len(set(names)) > 1:
        raise BadRecord("several classes")
    return names[0]


def class_number(names: Sequence[str], numbers: Mapping[str, int]) -> int:
    """The number of a record's class among the run's; raises BadRecord if it has several, or one that the run has not."""
    name = only_class(names)
    if name not in numbers:
        raise BadRecord("class that is not among the run's classes")
    return numbers[name]


def answers(metadata: Mapping[str, Any], dataset: DatasetConfig) -> tuple[str, ...]:
    """The answers that people gave to a record's question, from `label_field`; empty if there are none."""
    value = fields.lookup(metadata, dataset.label_field)
    several = value if isinstance(value, (list, tuple, np.ndarray)) else [value]
    return tuple(str(answer) for answer in several if answer is not None and str(answer).strip())


def _metadata(store: RecordStore) -> Iterator[Mapping[str, Any]]:
    texts = each_text(store, range(len(store)))
    return (text.metadata for _, text in texts if not isinstance(text, BadRecord))
