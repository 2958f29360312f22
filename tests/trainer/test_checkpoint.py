"""Checkpoints: written on one mesh, read on any other, on a disk or in a bucket."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType
from trainer import host_worker

from coca_jax.distributed.mesh import MESH_AXES
from coca_jax.errors import CocaError
from coca_jax.storage.files import as_path
from coca_jax.trainer import checkpoint, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord


def step_on(*shape: int) -> train_step.TrainStep:
    config = host_worker.config(steps=10, ema_decay=0.9)
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    return train_step.build(config, mesh)


def record() -> RunRecord:
    return RunRecord(host_worker.config(steps=10, ema_decay=0.9), b"a vocabulary", "data")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, state): a state that lies on 1 x 8 devices, saved."""
    folder = as_path(tmp_path_factory.mktemp("run"))
    original = step_on(1, 8, 1).init()
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(original, 7, record())
    checkpoints.close()
    return folder, original


@pytest.mark.parametrize("shape", [(4, 2, 1), (1, 1, 1), (2, 2, 2)])
def test_a_checkpoint_of_1x8_is_read_on_any_mesh(saved, shape):
    folder, original = saved
    step = step_on(*shape)
    checkpoints = Checkpoints(folder, keep=1)
    restored = checkpoints.restore(checkpoints.latest_step(), step)
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(original)
    for new, old, wanted in zip(*map(jax.tree.leaves, (restored, original, step.state)), strict=True):
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


# Copies in part, and other versions


def _without(part):
    path = part.parent / "elsewhere"
    part.rename(path)
    return lambda: path.rename(part)


def _cut(part):
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    return lambda: part.write_bytes(whole)


def test_a_checkpoint_copied_in_part_is_one_sentence(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "copy")
    step = tmp_path / "copy" / "checkpoints" / "7"
    for damage, part in [
        (_without, "run"),
        (_without, "run/metadata"),
        (_cut, "run/metadata"),
        (_without, "average"),
        (_without, "average/manifest.ocdbt"),
        (_without, "average/ocdbt.process_0"),
    ]:
        mend = damage(step / part)
        with pytest.raises(CocaError) as caught:
            checkpoint.load(tmp_path / "copy")
            pytest.fail(f"{part} was not missed")
        mend()
        assert f"the checkpoint {step} is incomplete or damaged (" in str(caught.value), part
        if part.startswith("average/"):
            assert f"(FileNotFoundError: {part}" in str(caught.value) and " is missing)" in str(caught.value)
        assert "copy it again as a whole" in str(caught.value) and "\n" not in str(caught.value), part
    assert checkpoint.load(tmp_path / "copy").record == record()


def _changed_record(saved, tmp_path, change) -> str:
    """The folder of a copy whose description of the run is changed."""
    shutil.copytree(saved[0], tmp_path / "copy")
    path = tmp_path / "copy" / "checkpoints" / "7" / "run" / "metadata"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return str(tmp_path / "copy")


def test_a_key_that_is_newer_than_the_checkpoint_takes_its_default(saved, tmp_path):
    def change(run):
        del run["config"]["optimizer"]["clip_norm"], run["config"]["objective"]

    assert checkpoint.load_record(_changed_record(saved, tmp_path, change)) == record()


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda run: run["config"]["train"].update(colour="red"), "config.train has no key 'colour'"),
        (lambda run: run.update(format=9), "it has the format 9, and this version reads 1"),
    ],
)
def test_another_versions_checkpoint_is_one_sentence(saved, tmp_path, change, reason):
    folder = _changed_record(saved, tmp_path, change)
    with pytest.raises(CocaError) as caught:
        checkpoint.load_record(folder)
    assert "was written by another version of coca_jax (" in str(caught.value) and reason in str(caught.value)


# The average of a run that is continued with another optimizer.ema_decay


@pytest.fixture
def without_average():
    config = host_worker.config(steps=10)
    return train_step.build(config, tiny.mesh(1, 1, 1)), RunRecord(config, b"a vocabulary", "data")


def test_an_average_that_is_switched_on_begins_at_the_parameters(tmp_path, without_average):
    step, plain = without_average
    checkpoints = Checkpoints(as_path(tmp_path), keep=1)
    checkpoints.save(step.init(), 7, plain)
    restored = checkpoints.restore(7, step_on(1, 1, 1))
    checkpoints.close()
    for x, average in zip(jax.tree.leaves(restored.params), jax.tree.leaves(restored.average), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(average))
        assert x.unsafe_buffer_pointer() != average.unsafe_buffer_pointer()  # the step gives back both


def test_an_average_that_is_switched_off_is_dropped(saved, without_average):
    folder, original = saved
    checkpoints = Checkpoints(folder, keep=1)
    restored = checkpoints.restore(7, without_average[0])
    checkpoints.close()
    assert restored.average is None
    jax.tree.map(np.testing.assert_array_equal, restored.evaluated_params, original.params)


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path):
    folder, state = as_path(tmp_path), step_on(1, 1, 1).init()
    checkpoints = Checkpoints(folder, keep=1)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.7)):
        checkpoints.save(state, step, record())
        assert checkpoints.offer(step, "scenes/accuracy", accuracy) == (step in (1, 2))  # of equal ones the first
    checkpoints.close()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir() if path.name.isdigit()) == ["2", "4"]
    assert checkpoint.load(folder).step == checkpoint.load(folder / "checkpoints").step == 2
    assert checkpoint.load(folder / "checkpoints" / "4").step == 4
    again = Checkpoints(folder, keep=1)  # a run goes on from its last checkpoint, and remembers its best
    assert again.latest_step() == 4 and not again.offer(4, "scenes/accuracy", 0.8)
    assert again.offer(4, "other/accuracy", 0.1)  # values of different metrics are not compared
    again.close()
    (folder / "best.json").write_text(json.dumps({"step": 3, "metric": "scenes/accuracy", "value": 1.0}))
    assert checkpoint.load(folder).step == 4  # that one is gone
