import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from coca_jax import sharding
from coca_jax.config import MeshConfig
from coca_jax.errors import CocaError
from coca_jax.sharding import RULES, Axis, constrain


def _mesh(*shape: int) -> jax.sharding.Mesh:
    return sharding.make_mesh(MeshConfig(*shape))


def _constraints(jaxpr) -> list[str]:
    """The PartitionSpecs of every sharding constraint in a jaxpr, those inside scans, remats and jits too."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "sharding_constraint":
            found.append(str(eqn.params["sharding"].spec))
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += _constraints(inner)
    return found


def test_every_axis_has_a_rule_onto_known_mesh_axes():
    assert set(RULES) == set(Axis)
    for rule in RULES.values():
        assert {rule or ()} <= {()} or set((rule,) if isinstance(rule, str) else rule) <= set(sharding.MESH_AXES)


def test_a_misspelt_axis_raises():
    with pytest.raises(AttributeError):
        Axis.BACTH
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
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), shape))
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize("config", [(3, 1, 1), (0, 3, 1), (0, 16, 1), (8, 2, 1), (1, 1, 1)])
def test_a_mesh_that_does_not_fit_is_refused_in_one_sentence(config):
    with pytest.raises(CocaError, match="but there are 8: change train.mesh") as caught:
        _mesh(*config)
    assert f"{config[1]} x {config[2]} devices" in str(caught.value)


@pytest.mark.parametrize("config", [(0, 0, 1), (0, 1, 0), (-1, 1, 1)])
def test_a_mesh_axis_below_one_is_refused(config):
    with pytest.raises(CocaError, match="train.mesh"):
        _mesh(*config)


def test_constrain_without_a_mesh_is_the_identity():
    x = jnp.ones((8, 4))
    assert constrain(x, Axis.BATCH, Axis.LENGTH) is x
    assert not _constraints(jax.make_jaxpr(lambda x: constrain(x, Axis.BATCH, Axis.LENGTH))(x).jaxpr)


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
    assert not _constraints(jax.make_jaxpr(function)(x).jaxpr)
    with jax.set_mesh(_mesh(2, 2, 2)):
        forward = _constraints(jax.make_jaxpr(function)(x).jaxpr)
        assert sorted(forward) == sorted(
            str(sharding.spec(Axis.BATCH, a)) for a in (Axis.ACTIVATION_MLP, Axis.LENGTH, Axis.ACTIVATION_WIDTH)
        )
        assert len(_constraints(jax.make_jaxpr(jax.grad(function))(x).jaxpr)) > len(forward)  # cotangents too


def test_shardings_of_a_tree():
    mesh = _mesh(2, 2, 2)
    tree = {"kernel": (Axis.WIDTH, Axis.MLP), "scalar": (), "none": None}
    found = sharding.shardings(mesh, tree)
    assert found["kernel"] == NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    assert found["scalar"] == NamedSharding(mesh, PartitionSpec()) == sharding.replicated(mesh)
    assert found["none"] is None


def test_batches_are_spread_over_data_and_fsdp():
    mesh = _mesh(2, 2, 2)
    x = jax.device_put(jnp.arange(16), sharding.batch_sharding(mesh))
    assert {shard.data.shape for shard in x.addressable_shards} == {(4,)}


def test_batch_size_must_divide():
    mesh = _mesh(2, 2, 2)
    sharding.check_batch_size(mesh, 12)
    with pytest.raises(CocaError, match="train.batch_size = 10 .* data x fsdp = 4 devices: make it a multiple of 4"):
        sharding.check_batch_size(mesh, 10)
    sharding.check_batch_size(_mesh(1, 1, 8), 1)
    sharding.check_batch_size(mesh, 24, microbatches=3)
    with pytest.raises(CocaError, match="train.batch_size = 12 in 2 microbatches .* make it a multiple of 8"):
        sharding.check_batch_size(mesh, 12, microbatches=2)
