"""Training images with labels, from which few-shot classification draws."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import EvaluationDatasetConfig, FewShotConfig, ModelConfig
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord, each_text
from coca_jax.errors import CocaError
from coca_jax.evaluation import labels
from coca_jax.evaluation.dataset import Classification, StoredImages, TrainingImages, spread
from coca_jax.evaluation.metrics import classes


def pool_size(config: FewShotConfig) -> int:
    """How many training images of each class are read: enough for draws that have none in common; 0: all of them."""
    return 0 if 0 in config.shots else max(config.shots) * config.repeats


def stored_training_images(
    config: EvaluationDatasetConfig, model: ModelConfig, tasks: Sequence[Classification]
) -> TrainingImages | None:
    """Images of the dataset's train split that have a class of any of the classifications; None if none is needed.

    All of their labels are read now, and their images when they are needed. Raises CocaError if there are no such records,
    or one class of them.
    """
    if "few_shot" not in config.tasks or not tasks:
        return None
    # With a label field, records without captions count too.
    label = config.dataset.label_field or config.classification.fields[0]
    dataset = dataclasses.replace(config.dataset, class_names="", label_field=label)
    store = open_records(dataset, "train")
    few_shot = config.few_shot
    indices: list[int] = []
    metadata: list[Mapping[str, Any]] = []
    for index, text in each_text(store, spread(len(store), few_shot.examples or len(store))):
        if not isinstance(text, BadRecord):
            indices.append(index)
            metadata.append(text.metadata)
    targets = labels.training_targets(config, store, metadata, tasks)
    chosen = _pool(list(targets.values()), few_shot)
    if not len(chosen):
        problem = f"none of {len(indices):,} training records of {dataset.path} has a class of the held-out ones"
        raise CocaError(f"{problem}: change the dataset's train_files or evaluation_files, or leave few_shot out")
    if all(len(task.candidate_classes) < 2 for task in tasks):
        todo = "change dataset.label_field, such as to a table's column, or classification.fields"
        raise CocaError(f"the held-out records have one class by {tasks[0].name!r}, and few_shot needs two: {todo}")
    images = StoredImages(store, np.array(indices, np.int64)[chosen], model, dataset)
    return TrainingImages(images, {task: own[chosen] for task, own in targets.items()})


def _pool(targets: Sequence[np.ndarray], config: FewShotConfig) -> np.ndarray:
    """The records that are read: of each class as many as `pool_size` says, chosen by the seed; ascending."""
    each = pool_size(config) or len(targets[0])
    order = np.random.default_rng(config.seed).permutation(len(targets[0]))
    return np.unique(np.concatenate([order[classes.first_of_each(own[order], each)] for own in targets]))
