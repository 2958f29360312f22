"""Checkpoints: written on one mesh, read on any other, on a disk or in a bucket."""

import math

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType
from trainer import host_worker

from coca_jax.distributed.mesh import MESH_AXES
from coca_jax.storage.files import as_path
from coca_jax.trainer import checkpoint, optimizer, state
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord


def plan_on(*shape: int) -> state.StatePlan:
    config = host_worker.config(steps=10)
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    optimiser = optimizer.build(config.optimizer, config.train.steps)
    return state.plan(tiny.model(config), optimiser, True, mesh)


def record() -> RunRecord:
    return RunRecord(host_worker.config(steps=10), b"a vocabulary", "data")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, state): a state that lies on 1 x 8 devices, saved."""
    folder = as_path(tmp_path_factory.mktemp("run"))
    original = plan_on(1, 8, 1).init(seed=3)
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(original, 7, record())
    checkpoints.close()
    return folder, original


@pytest.mark.parametrize("shape", [(4, 2, 1), (1, 1, 1), (2, 2, 2)])
def test_a_checkpoint_of_1x8_is_read_on_any_mesh(saved, shape):
    folder, original = saved
    plan = plan_on(*shape)
    checkpoints = Checkpoints(folder, keep=1)
    restored = checkpoints.restore(checkpoints.latest_step(), plan.abstract)
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(original)
    for new, old, wanted in zip(*map(jax.tree.leaves, (restored, original, plan.abstract)), strict=True):
        np.testing.assert_array_equal(np.asarray(new), np.asarray(old))
        assert new.sharding == wanted.sharding


def test_load_gives_the_parameters_on_one_device_or_on_a_mesh(saved):
    folder, original = saved
    one, spread = checkpoint.load(folder), checkpoint.load(folder / "checkpoints" / "7", plan_mesh(2, 4, 1))
    assert one.step == spread.step == 7 and one.record == record()
    for a, b, old in zip(*map(jax.tree.leaves, (one.params, spread.params, original.params)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(old))
        np.testing.assert_array_equal(np.asarray(b), np.asarray(old))
        assert len(a.devices()) == 1 and len(b.devices()) == 8


def plan_mesh(*shape: int) -> jax.sharding.Mesh:
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
