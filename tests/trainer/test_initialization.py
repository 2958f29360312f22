import types

import jax
import numpy as np
import pytest
from etils import epath

from coca_jax import config as config_lib
from coca_jax.config import MeshConfig
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import resize_positions
from coca_jax.trainer import initialization as warm_start
from coca_jax.trainer import state, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord


def _config(**changes) -> config_lib.Config:
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=16, patch=4, layers=1, mlp=32)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=32, length=8, unimodal_layers=1, multimodal_layers=1, mlp=32)
    values.optimizer.update(name="adamw")
    values.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config_lib.from_config_dict(values)


def _value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory) -> tuple[str, dict]:
    """The folder of a run at 16 pixels that was saved at step 7, and its parameters."""
    folder = tmp_path_factory.mktemp("first")
    config, mesh = _config(), make_mesh(MeshConfig(fsdp=1))
    step = train_step.build(config, mesh)
    with jax.set_mesh(mesh):
        random = jax.tree_util.tree_map_with_path(lambda path, x: _value(str(path), x.shape), step.state.params)
        zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), step.state)
        saved = zeros.replace(params=jax.device_put(random, sharding.NamedSharding(mesh, sharding.PartitionSpec())))
        checkpoints = Checkpoints(epath.Path(folder), keep=1)
        checkpoints.save(saved, 7, RunRecord(config, b"vocabulary", "fingerprint"))
        checkpoints.close()
    return str(folder), random


def _start(config: config_lib.Config, *shape: int) -> state.TrainState:
    mesh = make_mesh(MeshConfig(*(shape or (2, 2, 2))))
    step = train_step.build(config, mesh)
    with jax.set_mesh(mesh):
        found = warm_start.initial_state(step)
    jax.tree.map(lambda x, wanted: (x.sharding == wanted.sharding) or pytest.fail(str(wanted)), found, step.state)
    return found


def test_without_a_source_the_start_is_fresh():
    step = types.SimpleNamespace(config=_config(), init=lambda: "fresh")
    assert warm_start.initial_state(step) == "fresh"


def test_a_larger_picture_starts_from_resized_positions_and_all_else_as_it_was(first_stage):
    folder, saved = first_stage
    found = _start(_config(train__init_from=folder, model__image__size=32, optimizer__ema_decay=0.9))
    assert found.step == 0
    assert found.params["image_encoder"]["positions"].shape == (64, 16)
    expected = saved | {
        "image_encoder": saved["image_encoder"]
        | {"positions": resize_positions(saved["image_encoder"]["positions"], 64)}
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, expected)
    jax.tree.map(np.testing.assert_array_equal, found.average, found.params)
    for x, average in zip(jax.tree.leaves(found.params), jax.tree.leaves(found.average), strict=True):

        def pointer(array):
            return array.addressable_shards[0].data.unsafe_buffer_pointer()

        assert pointer(x) != pointer(average)  # the step gives both back: one memory for two would end the run
    assert all(not np.any(x) for x in jax.tree.leaves(found.opt_state))  # a new optimiser


@pytest.fixture
def shapes_only(monkeypatch):
    """Has the fresh state be shapes: what refuses another run's parameters looks at nothing else of it."""
    monkeypatch.setattr(train_step.TrainStep, "init", lambda step: step.state)


@pytest.mark.parametrize(
    "changes, name, says",
    [
        ({"model__image__mlp": 48}, "image_encoder/layers/blocks/mlp/", "only model.image.size may differ"),
        ({"model__text__vocabulary_size": 64}, "softmax/", "only model.image.size may differ"),
        ({"objective__pretraining__captioning_weight": 0.0}, "multimodal/", "has no place"),
        ({"model__image__stem": "conv"}, "image_encoder/stem/", "has no parameter"),
    ],
)
def test_another_model_is_refused_with_the_parameters_name(first_stage, shapes_only, changes, name, says):
    folder, _ = first_stage
    with pytest.raises(CocaError) as caught:
        _start(_config(train__init_from=folder, **changes), 8, 1, 1)
    message = str(caught.value)
    assert name in message and says in message and folder in message and "\n" not in message


def test_a_folder_without_a_checkpoint_is_refused(tmp_path, shapes_only):
    with pytest.raises(CocaError, match="holds no complete checkpoint"):
        _start(_config(train__init_from=str(tmp_path)), 8, 1, 1)


# Positions


def _ramp(side: int) -> np.ndarray:
    """Two channels that grow evenly along the rows and columns of a picture one unit wide: [side², 2]."""
    centres = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


def test_positions_of_the_same_size_stay():
    positions = _value("any", (16, 5))
    np.testing.assert_allclose(resize_positions(positions, 16), positions, atol=1e-6)


@pytest.mark.parametrize("old, new", [(16, 32), (8, 12), (32, 16)])
def test_positions_keep_their_place_in_the_picture(old, new):
    found = np.asarray(resize_positions(_ramp(old), new * new)).reshape(new, new, 2)
    edge = 2 * -(-new // old) + 1  # the kernel reaches over the border there
    inside = slice(edge, new - edge)
    np.testing.assert_allclose(found[inside, inside], _ramp(new).reshape(new, new, 2)[inside, inside], atol=1e-4)
    np.testing.assert_allclose(found[..., 0], found[..., 1].T, atol=1e-5)  # rows stay rows


def test_positions_are_bicubic():
    # Between the centres of two patches, a quarter of the way: Keys' weights for a = -1/2.
    line = np.zeros((8, 8, 1), np.float32)
    line[:, 4] = 1.0
    found = np.asarray(resize_positions(line.reshape(64, 1), 256)).reshape(16, 16)[7]
    t = np.array([1.75, 1.25, 0.75, 0.25])
    keys = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
    np.testing.assert_allclose(found[5:9], keys, atol=1e-5)


@pytest.mark.parametrize("count, tokens", [(15, 16), (16, 15)])
def test_positions_of_no_square_are_refused(count, tokens):
    with pytest.raises(ValueError, match="must be squares"):
        resize_positions(np.zeros((count, 2), np.float32), tokens)
