"""Evaluates a model on datasets, one after another: the model's predictions once, then every task's metrics."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from coca_jax.config import Config, EvaluationDatasetConfig
from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import AnyDataset, EvaluationDataset, PendingDataset
from coca_jax.evaluation.groups import group_results
from coca_jax.evaluation.metrics.captions import java_metrics, scores
from coca_jax.evaluation.open_dataset import check_same_datasets, run_datasets
from coca_jax.evaluation.predict import Needs, TextClassifiers, predict
from coca_jax.evaluation.report import galleries
from coca_jax.evaluation.tasks import TASKS
from coca_jax.evaluation.tasks.base import DatasetResult, Task
from coca_jax.pages.blocks import Text, Tiles

_log = logging.getLogger(__name__)
_WITHOUT_LOSS = "the {} loss, which the model was trained without"


class RunEvaluation:
    """Evaluates a run's models on its held-out records and the datasets of `config.evaluation`; errors as `run_datasets`.

    Attributes:
      names: of the datasets and their groups, with which the metrics' names begin.
    """

    def __init__(self, config: Config, classes: Sequence[str] = ()):
        self._gallery = config.evaluation.gallery
        self._datasets = run_datasets(config, classes)
        groups = (one.config.group for one in self._datasets)
        self.names = tuple(dict.fromkeys([*(one.name for one in self._datasets), *filter(None, groups)]))

    def __call__(self, coca: Any) -> list[DatasetResult] | None:
        """The results; None if the evaluation failed, which is logged and does not end the run."""
        try:
            return evaluate_datasets(coca, self._datasets, self._gallery)
        except CocaError as error:
            if hosts.is_first():
                _log.error("step %d is not evaluated, evaluation.json stays as it is: %s", coca.step, error)
            return None


def evaluate_datasets(coca: Any, datasets: Sequence[AnyDataset], gallery: int) -> list[DatasetResult]:
    """The results on each dataset with a task that the model can do, then the means of the datasets' groups.

    A dataset that fails among several has a result with the reason (`failed`), which is logged, too. Pending ones are open
    only while it is their turn. The report shows `gallery` images of each.

    Raises:
      CocaError: no dataset has a task that the model can do, or all of them failed.
    """
    datasets = _possible(coca, datasets)
    _warn_of_missing_java(datasets)
    classifiers = TextClassifiers(coca)
    results: list[DatasetResult] = []
    for number, one in enumerate(datasets, 1):
        place = f"{number} of {len(datasets)}"
        try:
            results.append(evaluate_dataset(coca, _opened(one, place), gallery, classifiers))
        except CocaError as error:
            results.append(DatasetResult(one.name, failed=str(error)))
            if len(datasets) == sum(bool(result.failed) for result in results):
                raise
            if hosts.is_first():
                _log.error("%s is not evaluated: %s", one.name, error)
        for note in results[-1].notes if hosts.is_first() else ():
            _warn_once(note)
        if results[-1].unreadable:
            _log.info("%s: records left out: %s", one.name, _counted(results[-1].unreadable))
    return results + group_results(datasets, results)


def evaluate_dataset(
    coca: Any, dataset: EvaluationDataset, gallery: int, classifiers: TextClassifiers
) -> DatasetResult:
    """The results of every task that the model can do; CocaError if there is none, or no image can be read."""
    tasks, notes = _possible_tasks(coca, dataset.config)
    needs = functools.reduce(Needs.__or__, (task.needs(dataset) for task in tasks), Needs())
    if needs == Needs():
        raise CocaError(f"{dataset.name}: {notes[0] if notes else 'no example has a class'}")
    predictions = predict(coca, dataset, needs, classifiers)
    results = [task.compute(dataset, predictions) for task in tasks]
    lost = sum(predictions.unreadable.values())
    metrics: dict[str, float] = {"images": len(predictions.rows), **({"unreadable": lost} if lost else {})}
    baselines: dict[str, float] = {}
    for result in results:
        metrics |= result.metrics
        baselines |= result.baselines
        notes += [note for note in result.notes if note not in notes]
    tiles = [tile for result in results for tile in result.tiles]
    headline = [Tiles(tiles)] if tiles else []
    # The last task first: of an image's texts its generated caption is the one to read.
    texts = [one for result in reversed(results) for one in result.image_texts]
    return DatasetResult(
        name=dataset.name,
        metrics={f"{dataset.name}/{key}": value for key, value in metrics.items()},
        baselines={f"{dataset.name}/{key}": value for key, value in baselines.items()},
        blocks=[
            Text(_summary(metrics, predictions.unreadable), "lead"),
            *(Text(note, "lead") for note in notes),
            *headline,
            *galleries(dataset, predictions, texts, gallery),
            *(block for result in results for block in result.blocks),
        ],
        notes=notes,
        unreadable=predictions.unreadable,
        submissions={kind: texts for result in results for kind, texts in result.submissions.items() if texts},
    )


def _summary(metrics: Mapping[str, float], unreadable: Mapping[str, int]) -> str:
    """The numbers of images, captions and records left out, in words."""
    words = f"{metrics['images']:,} held-out images"
    captions, meanings = metrics.get("distinct_captions"), metrics.get("distinct_meanings")
    if captions is not None:
        words += f", {captions:,} distinct captions"
        words += f" with {meanings:,} distinct meanings" if meanings != captions else ""
    return words + (f". Records that could not be used: {_counted(unreadable)}." if unreadable else ".")


def _counted(unreadable: Mapping[str, int]) -> str:
    return "; ".join(f"{count:,} {cause}" for cause, count in unreadable.items())


def _opened(one: AnyDataset, place: str) -> EvaluationDataset:
    dataset = _open_on_all(one) if isinstance(one, PendingDataset) else one
    _log.info("evaluating %s (%s): %s images", one.name, place, f"{len(dataset.images):,}")
    return dataset


def _open_on_all(one: PendingDataset) -> EvaluationDataset:
    """The dataset, the same on all processes; a failure on one of them fails on all, or the others would wait for it."""
    try:
        dataset = one.open()
    except CocaError as error:
        here = f"{one.name} cannot be opened on every host: {error}"
        try:
            hosts.check_same(f"{one.name} failed", here)
        except CocaError:
            if not hosts.is_first():  # which only knows that the others did not fail
                _log.error("%s", here)
            raise
        raise
    check_same_datasets([dataset])
    return dataset


def _possible_tasks(coca: Any, config: EvaluationDatasetConfig) -> tuple[list[Task], list[str]]:
    """The tasks that the model can do, in the order of TASKS, and a sentence for each that it cannot do."""
    able = {"contrastive": coca.can_embed, "captioning": coca.can_caption, "head": bool(coca.classes)}
    tasks, notes = [], []
    for name, task in TASKS.items():
        if name in config.tasks and able[task.branch]:
            tasks.append(task)
        elif name in config.tasks:
            lacks = "a head, which this model has not" if task.branch == "head" else _WITHOUT_LOSS.format(task.branch)
            notes.append(f"{name} needs {lacks}")
    return tasks, notes


def _possible(coca: Any, datasets: Sequence[AnyDataset]) -> list[AnyDataset]:
    """The datasets with a task that the model can do, decided before the first one's hours; CocaError if none remains."""
    possible, reasons = [], []
    for one in datasets:
        tasks, notes = _possible_tasks(coca, one.config)
        if tasks:
            possible.append(one)
        else:
            reasons.append((one.name, notes[0]))
    if datasets and not possible:
        raise CocaError(": ".join(reasons[0]))
    for reason in reasons if hosts.is_first() else ():
        _log.warning("%s is left out: %s", *reason)
    return possible


def _warn_of_missing_java(datasets: Sequence[AnyDataset]) -> None:
    """Warns of caption scores that this machine cannot compute, before hours of captions are generated."""
    wanted = {name for one in datasets if "captioning" in one.config.tasks for name in one.config.captioning.scores}
    for name in scores.JAVA if hosts.is_first() else ():
        try:
            if name in wanted:
                java_metrics.check_available(name)
        except CocaError as error:
            _warn_once(str(error))


@functools.cache
def _warn_once(sentence: str) -> None:
    """Logs a sentence, the first time that it comes up in this process: a run evaluates its datasets many times."""
    _log.warning("%s", sentence)
