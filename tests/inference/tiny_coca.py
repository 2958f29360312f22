"""The smallest real model with its vocabulary."""

import functools

import numpy as np
import tiny

from coca_jax import config as config_lib
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.inference.model import Coca
from coca_jax.models import coca as models

SIZE = 16


CLASSES = ("red", "blue", "green")


def coca(**weights: float) -> Coca:
    """Random parameters that are far enough from zero to tell images apart; batches of 4; weights of the losses."""
    return _coca(**{f"objective.pretraining.{name}": value for name, value in weights.items()})


def adapted(objective: str, frames: int = 0) -> Coca:
    """A model with a head for three classes."""
    task = {"vqa": "questions", "classification": "digits"}.get(objective, objective)
    dataset = {"data.dataset.task": task}
    if frames:
        dataset = {"data.dataset.format": "folder", "data.dataset.path": "x", "data.dataset.label_field": "y"}
    keys = {"objective.name": objective, "objective.head.classes": len(CLASSES), "data.dataset.frames": frames}
    return _coca(**keys, **dataset)


@functools.cache
def _coca(**keys) -> Coca:
    vocabulary = train_vocabulary(["a red thing", "a blue one", "green and {braces}"], 40)
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=SIZE, patch=8, layers=1, mlp=24)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=vocabulary.size, length=16, unimodal_layers=1, multimodal_layers=1, mlp=24)
    values.evaluation.batch_size = 4
    values.update_from_flattened_dict(keys)
    config = config_lib.from_config_dict(values)
    params = tiny.spread_parameters(models.abstract_parameters(tiny.model(config))[0])
    return Coca(config, params, vocabulary, step=7, classes=CLASSES if config.objective.has_head else ())


@functools.cache
def images() -> np.ndarray:
    """Nine images, uint8 [9, SIZE, SIZE, 3]."""
    return np.random.default_rng(1).integers(0, 256, (9, SIZE, SIZE, 3)).astype(np.uint8)
