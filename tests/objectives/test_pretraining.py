"""The captioning loss of each source of a mixture: that of its own rows, on any mesh and in any number of parts."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.distributed import sharding
from coca_jax.objectives import accumulation
from coca_jax.trainer import train_step

SOURCE = np.array([1, 0, 1, 1, 0, 1, 1, 0], np.int32)


def _mixed(count: int, **changes) -> config_lib.Config:
    """A config with so many sources, named a and b."""
    mixture = {name: config_lib.SourceConfig() for name in "ab"[:count]}
    return dataclasses.replace(tiny.config(**changes), data=config_lib.DataConfig(mixture=mixture))


@pytest.fixture(scope="module")
def trained():
    """An objective with two sources, its loss compiled, parameters, a batch of eight."""
    config = _mixed(2, objective__pretraining__contrastive_weight=0.0)
    several = objectives.build(config, tiny.PAD)
    params = jax.tree.map(np.asarray, train_step.build(config, tiny.mesh(1, 1, 1)).init().params)
    loss = jax.jit(lambda batch: several.loss(params, batch, jax.random.key(0))[1])
    return several, loss, params, tiny.batch(config) | {"source": SOURCE}


def test_it_is_the_loss_of_the_sources_rows(trained):
    _, loss, _, batch = trained
    metrics = loss(batch)
    for number, name in enumerate("ab"):
        text = np.where(
            (SOURCE[:, None] == number) | (np.arange(8) == 0), batch["text"], tiny.PAD
        )  # no label elsewhere
        alone = loss(batch | {"text": text})
        np.testing.assert_allclose(metrics[f"captioning_loss/{name}"], alone["captioning_loss"], rtol=1e-5)
    assert metrics["captioning_loss/a"] != metrics["captioning_loss/b"]


def test_parts_and_meshes_give_the_same(trained):
    several, loss, params, batch = trained
    expected, mesh = loss(batch), tiny.mesh(2, 2, 1)
    with jax.set_mesh(mesh):
        placed = jax.device_put(batch, sharding.batch_sharding(mesh))
        _, found = jax.jit(accumulation.gradients(several, 2))(params, {}, placed, jax.random.key(0))
    for name in ("captioning_loss", "captioning_loss/a", "captioning_loss/b"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("count, weight, names", [(0, 2.0, ()), (1, 2.0, ()), (2, 2.0, ("a", "b")), (2, 0.0, ())])
def test_only_mixtures_whose_captions_are_learned_have_them(count, weight, names):
    objective = objectives.build(_mixed(count, objective__pretraining__captioning_weight=weight))
    assert objective.sources == names
    assert ("source" in objective.batch()) == bool(names)
