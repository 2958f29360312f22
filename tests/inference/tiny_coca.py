"""The smallest real model with its vocabulary."""

import functools

import numpy as np
import tiny

from coca_jax import config as config_lib
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.inference.model import Coca
from coca_jax.models import coca as models

SIZE = 16


@functools.cache
def coca(**weights: float) -> Coca:
    """Random parameters that are far enough from zero to tell images apart; batches of 4; weights of the losses."""
    vocabulary = train_vocabulary(["a red thing", "a blue one", "green and {braces}"], 40)
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=SIZE, patch=8, layers=1, mlp=24)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=vocabulary.size, length=16, unimodal_layers=1, multimodal_layers=1, mlp=24)
    values.evaluation.batch_size = 4
    values.objective.pretraining.update(weights)
    config = config_lib.from_config_dict(values)
    params = tiny.spread_parameters(models.abstract_parameters(tiny.model(config))[0])
    return Coca(config, params, vocabulary, step=7)


@functools.cache
def images() -> np.ndarray:
    """Nine images, uint8 [9, SIZE, SIZE, 3]."""
    return np.random.default_rng(1).integers(0, 256, (9, SIZE, SIZE, 3)).astype(np.uint8)
