import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from coca_jax import config as config_lib
from coca_jax.config import MeshConfig
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import MESH_AXES, device_grid, make_mesh, mesh_shape, slice_count
from coca_jax.distributed.sharding import RULES, Axis, constrain
from coca_jax.errors import CocaError
from coca_jax.models import coca


def _mesh(*shape: int) -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(*shape))


def test_every_axis_has_a_rule_onto_known_mesh_axes():
    assert set(RULES) == set(Axis)
    for rule in RULES.values():
        assert {rule or ()} <= {()} or set((rule,) if isinstance(rule, str) else rule) <= set(MESH_AXES)


def test_a_misspelt_axis_raises():
    with pytest.raises(AttributeError):
        _ = Axis.BACTH
    with pytest.raises(ValueError):
        Axis("bacth")
    with pytest.raises(KeyError):
        sharding.spec("bacth")


def test_spec():
    assert sharding.spec(Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_MLP) == PartitionSpec(
        ("data", "fsdp"), None, "tensor"
    )
    assert sharding.spec(Axis.LAYERS, Axis.WIDTH, Axis.HEADS, Axis.HEAD_DIM) == PartitionSpec(
        None, "fsdp", "tensor", None
    )
    assert sharding.spec() == PartitionSpec()


@pytest.mark.parametrize(
    "axes",
    [
        (Axis.WIDTH, Axis.WIDTH),
        (Axis.HEADS, Axis.MLP),
        (Axis.BATCH, Axis.WIDTH),
        (Axis.VOCABULARY, Axis.ACTIVATION_MLP),
    ],
)
def test_a_collision_raises_with_the_names(axes):
    with pytest.raises(ValueError, match=f"{axes[0].name}.*{axes[1].name}.*twice"):
        sharding.spec(*axes)


@pytest.mark.parametrize(
    "config, shape",
    [
        ((0, 1, 1), (8, 1, 1)),
        ((0, 8, 1), (1, 8, 1)),
        ((0, 2, 2), (2, 2, 2)),
        ((2, 4, 1), (2, 4, 1)),
        ((1, 1, 8), (1, 1, 8)),
    ],
)
def test_make_mesh(config, shape):
    mesh = _mesh(*config)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), shape, strict=True))
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize("config", [(3, 1, 1), (0, 3, 1), (0, 16, 1), (8, 2, 1), (1, 1, 1)])
def test_a_mesh_that_does_not_fit_is_refused_in_one_sentence(config):
    with pytest.raises(CocaError, match=r"but there are 8: change train.mesh") as caught:
        _mesh(*config)
    assert f"{config[1]} x {config[2]} devices" in str(caught.value)


@pytest.mark.parametrize("config", [(0, 1, 0), (0, 0, 0), (-1, 1, 1)])
def test_a_mesh_axis_below_one_is_refused(config):
    with pytest.raises(CocaError, match=r"train.mesh"):
        _mesh(*config)


BASE, LARGE, GIANT = map(config_lib.variant, ("base", "large", "giant"))
SMALL = config_lib.ModelConfig(width=96, heads=3, text=config_lib.TextConfig(vocabulary_size=256))


@pytest.mark.parametrize(
    "model, devices, slices, shape",
    [
        (SMALL, 1, 1, (1, 1, 1)),  # a laptop
        (BASE, 1, 1, (1, 1, 1)),
        (SMALL, 8, 1, (8, 1, 1)),  # fits each device whole
        (BASE, 8, 1, (1, 8, 1)),
        (GIANT, 8, 1, (1, 8, 1)),
        (GIANT, 2048, 1, (16, 128, 1)),  # v4-2048 chips: 1408 = 128 * 11
        (GIANT, 256, 1, (2, 128, 1)),  # v5e-256
        (GIANT, 512, 1, (4, 128, 1)),  # v5p-512
        (GIANT, 512, 4, (4, 128, 1)),
        (GIANT, 256, 4, (4, 64, 1)),  # fsdp stays inside a slice of 64
        (GIANT, 2 * 44, 2, (2, 44, 1)),
        (LARGE, 2048, 1, (16, 128, 1)),
        (BASE, 2048, 1, (32, 64, 1)),  # 768 / 64 = 12; 768 / 128 = 6 would fill less than a tile
        (BASE, 24, 1, (1, 24, 1)),
        (GIANT, 24, 1, (3, 8, 1)),
        (GIANT, 13, 1, (13, 1, 1)),
    ],
)
def test_the_mesh_is_chosen_for_the_model_and_the_devices(model, devices, slices, shape):
    assert mesh_shape(MeshConfig(), model, devices, slices) == shape
    # What was chosen can be said explicitly, and then holds.
    assert mesh_shape(MeshConfig(*shape), model, devices, slices) == shape


def test_a_conv_stems_narrow_layers_limit_the_choice():
    image = config_lib.ImageEncoderConfig(size=256, patch=16, stem="conv", layers=12)
    model = config_lib.ModelConfig(width=768, image=image)  # 96, 192, 384, 768
    assert model.stem_widths == (96, 192, 384, 768)
    assert mesh_shape(MeshConfig(), model, 256) == (8, 32, 1)


@pytest.mark.parametrize(
    "explicit, shape",
    [
        ((0, 32, 1), (64, 32, 1)),
        ((4, 0, 1), (4, 512, 1)),
        ((0, 0, 4), (4, 128, 4)),
        ((0, 1, 1), (2048, 1, 1)),
        ((8, 64, 4), (8, 64, 4)),
    ],
)
def test_an_explicit_axis_wins(explicit, shape):
    assert mesh_shape(MeshConfig(*explicit), GIANT, 2048) == shape


def test_without_a_model_nothing_is_spread():
    assert mesh_shape(MeshConfig(), None, 8) == (8, 1, 1)


@dataclasses.dataclass(frozen=True)
class Chip:
    """Stands for a device of a pod of several slices."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "stand-in"
    process_index: int = 0


def _chips(slices: int, each: int) -> list[Chip]:
    return [Chip(i * slices + s, s) for i in range(each) for s in range(slices)]  # in no good order


def _slices_along(grid: np.ndarray, axis: int) -> set[int]:
    """How many slices a line of devices along an axis meets, at the most and at the least."""
    index = np.vectorize(lambda chip: chip.slice_index)(grid)
    return {len(set(line)) for line in np.moveaxis(index, axis, -1).reshape(-1, grid.shape[axis])}


@pytest.mark.parametrize("shape", [(4, 4, 1), (2, 8, 1), (2, 4, 2), (8, 1, 2)])
def test_data_crosses_slices_and_nothing_else_does(shape):
    chips = _chips(2, 8)
    assert slice_count(chips) == 2
    grid = device_grid(shape, chips)
    assert grid.shape == shape and set(grid.flat) == set(chips)
    assert _slices_along(grid, 0) == {2} and _slices_along(grid, 1) == _slices_along(grid, 2) == {1}
    assert {chip.slice_index for chip in grid[: shape[0] // 2].flat} == {0}  # a slice is a block of `data`


def test_an_explicit_mesh_without_data_lets_fsdp_cross():
    grid = device_grid((1, 16, 1), _chips(2, 8))
    assert grid.shape == (1, 16, 1) and [chip.slice_index for chip in grid.flat] == [0] * 8 + [1] * 8
    grid = device_grid((2, 8, 1), _chips(4, 4))
    assert _slices_along(grid, 0) == _slices_along(grid, 1) == {2}


def test_tensor_never_crosses_slices():
    with pytest.raises(
        CocaError, match=r"1 x 1 x 16 does not fit 2 slices of 8 devices: make train.mesh.data a multiple"
    ):
        device_grid((1, 1, 16), _chips(2, 8))


def test_a_mesh_of_given_devices():
    mesh = make_mesh(MeshConfig(), BASE, jax.devices()[2:6])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 1}
    assert set(mesh.devices.flat) == set(jax.devices()[2:6])


def _giant() -> tuple:
    return coca.abstract_parameters(coca.Coca(GIANT))


def test_the_giant_fits_the_meshes_that_are_chosen_for_it():
    params, logical = _giant()
    for devices in (1, 8, 256, 512, 2048):
        shape = mesh_shape(MeshConfig(), GIANT, devices)
        sharding.check_parameters(AbstractMesh(shape, MESH_AXES), params, logical)
    sharding.check_parameters(AbstractMesh((2, 1, 8), MESH_AXES), params, logical)


@pytest.mark.parametrize(
    "shape, sentence",
    [
        (
            (1, 24, 1),
            "has width = 1408, which does not divide over fsdp = 24: set train.mesh.fsdp to a divisor of 1408",
        ),
        (
            (1, 1, 32),
            "has heads = 16, which does not divide over tensor = 32: set train.mesh.tensor to a divisor of 16",
        ),
    ],
)
def test_a_dimension_that_does_not_divide_is_named(shape, sentence):
    with pytest.raises(CocaError, match="the parameter image_encoder/layers/blocks/attention/") as caught:
        sharding.check_parameters(AbstractMesh(shape, MESH_AXES), *_giant())
    assert str(caught.value).endswith(sentence) and "\n" not in str(caught.value)


def test_a_large_parameter_left_whole_is_named(monkeypatch):
    monkeypatch.setitem(RULES, Axis.VOCABULARY, None)
    params, logical = _giant()
    sharding.check_parameters(AbstractMesh((8, 1, 1), MESH_AXES), params, logical)  # no parameter is sharded
    sharding.check_parameters(AbstractMesh((4, 2, 1), MESH_AXES), params, logical)  # the width is
    with pytest.raises(CocaError, match="softmax/kernel of 90,112,000 numbers would be replicated") as caught:
        sharding.check_parameters(AbstractMesh((4, 1, 2), MESH_AXES), params, logical)
    assert "(width, vocabulary)" in str(caught.value)


def test_one_compiled_function_follows_the_mesh_that_is_set():
    function = jax.jit(lambda x: constrain(x * 2, Axis.BATCH, Axis.ACTIVATION_MLP))
    x = jnp.ones((8, 4))
    assert len(function(x).sharding.device_set) == 1
    for shape, part in {(8, 1, 1): (1, 4), (2, 2, 2): (2, 2)}.items():
        with jax.set_mesh(_mesh(*shape)):
            assert function(x).addressable_shards[0].data.shape == part
    assert len(function(x).sharding.device_set) == 1


def test_constrain_tree():
    with jax.set_mesh(_mesh(2, 2, 2)):
        tree = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
        logical = {"kernel": (Axis.WIDTH, Axis.MLP), "bias": (Axis.MLP,)}
        found = jax.jit(lambda tree: sharding.constrain_tree(tree, logical))(tree)
    assert {name: x.addressable_shards[0].data.shape for name, x in found.items()} == {"kernel": (2, 2), "bias": (2,)}


def test_constrain_without_a_mesh_is_the_identity():
    x = jnp.ones((8, 4))
    assert constrain(x, Axis.BATCH, Axis.LENGTH) is x
    assert not tiny.constraints(jax.make_jaxpr(lambda x: constrain(x, Axis.BATCH, Axis.LENGTH))(x).jaxpr)


def test_constrain_refuses_another_rank():
    with pytest.raises(ValueError, match=r"1 logical axes for an array of shape \(8, 4\)"):
        constrain(jnp.ones((8, 4)), Axis.BATCH)


def test_constrain_under_set_mesh_lays_out():
    mesh = _mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        function = jax.jit(lambda x: constrain(x * 2, Axis.BATCH, Axis.ACTIVATION_MLP))
        x = jnp.arange(32.0).reshape(8, 4)
        y = function(x)
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor")), 2)
    assert y.addressable_shards[0].data.shape == (2, 2)
    assert (y == x * 2).all()


def test_constraints_live_inside_scan_and_remat():
    def body(x, _):
        block = jax.checkpoint(lambda x: constrain(jnp.sin(x), Axis.BATCH, Axis.ACTIVATION_MLP))
        return constrain(block(x), Axis.BATCH, Axis.LENGTH), None

    def function(x):
        return jax.lax.scan(body, constrain(x, Axis.BATCH, Axis.ACTIVATION_WIDTH), length=3)[0].sum()

    x = jnp.ones((8, 4))
    assert not tiny.constraints(jax.make_jaxpr(function)(x).jaxpr)
    with jax.set_mesh(_mesh(2, 2, 2)):
        forward = list(map(str, tiny.constraints(jax.make_jaxpr(function)(x).jaxpr)))
        assert sorted(forward) == sorted(
            str(sharding.spec(Axis.BATCH, a)) for a in (Axis.ACTIVATION_MLP, Axis.LENGTH, Axis.ACTIVATION_WIDTH)
        )
        assert len(tiny.constraints(jax.make_jaxpr(jax.grad(function))(x).jaxpr)) > len(forward)  # cotangents too


def test_shardings_of_a_tree():
    mesh = _mesh(2, 2, 2)
    tree = {"kernel": (Axis.WIDTH, Axis.MLP), "scalar": (), "none": None}
    found = sharding.shardings(mesh, tree)
    assert found["kernel"] == NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    assert found["scalar"] == NamedSharding(mesh, PartitionSpec())
    assert found["none"] is None


def test_batches_are_spread_over_data_and_fsdp():
    mesh = _mesh(2, 2, 2)
    x = jax.device_put(jnp.arange(16), sharding.batch_sharding(mesh))
    assert {shard.data.shape for shard in x.addressable_shards} == {(4,)}


def test_batch_size_must_divide():
    mesh = _mesh(2, 2, 2)
    sharding.check_batch_size(mesh, 12)
    with pytest.raises(CocaError, match=r"train.batch_size = 10 .* data x fsdp = 4 devices: make it a multiple of 4"):
        sharding.check_batch_size(mesh, 10)
    sharding.check_batch_size(_mesh(1, 1, 8), 1)
    sharding.check_batch_size(mesh, 24, microbatches=3)
    with pytest.raises(CocaError, match=r"train.batch_size = 12 in 2 microbatches .* make it a multiple of 8"):
        sharding.check_batch_size(mesh, 12, microbatches=2)
