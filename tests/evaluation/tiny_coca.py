"""A real model of the smallest kind, with random parameters that tell pictures and texts apart."""

import functools

import jax
import numpy as np
import tiny

from coca_jax import config as config_lib
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.distributed import sharding
from coca_jax.inference import model as inference
from coca_jax.models import coca as models

SIZE, BATCH = 16, 8
TEXTS = ["a red thing", "a blue one", "green", "two red ones and a thing", "blue and green and a red one", "things"]


@functools.cache
def _parts():
    vocabulary = train_vocabulary(TEXTS, 40)
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=SIZE, patch=8, layers=1, mlp=24)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=vocabulary.size, length=24, unimodal_layers=1, multimodal_layers=1, mlp=24)
    config = config_lib.from_config_dict(values)
    abstract, logical = models.abstract_parameters(tiny.model(config))
    return config, tiny.spread_parameters(abstract), vocabulary, logical


@functools.cache
def coca(mesh: jax.sharding.Mesh | None = None) -> inference.Coca:
    """The model, on a mesh or on one device; batches of eight."""
    config, params, vocabulary, logical = _parts()
    if mesh is not None:
        params = jax.device_put(params, sharding.shardings(mesh, logical))
    return inference.Coca(config, params, vocabulary, step=7, mesh=mesh, batch_size=BATCH)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
