"""The step is the same step on every mesh and in any number of microbatches, and lays out what it should."""

import collections
import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
import tiny

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.distributed import sharding
from coca_jax.objectives.base import Objective
from coca_jax.trainer import state, train_step

BATCH, STEPS = 16, 3


def _config(**changes) -> config_lib.Config:
    # So small a rate that three steps stay comparable to the last digits.
    fixed = dict(optimizer__name="adamw", optimizer__peak_learning_rate=1e-4, train__batch_size=BATCH)
    return tiny.config(**fixed, **changes)


def _keeps_gradients(chain: optax.GradientTransformation) -> optax.GradientTransformation:
    """`chain`, with the last gradients in its state."""
    keep = optax.GradientTransformation(optax.tree.zeros_like, lambda gradients, _, params=None: (gradients, gradients))
    return optax.chain(keep, chain)


def _by_name(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.array(leaf) for path, leaf in leaves}


def _step(shape: tuple[int, int, int], microbatches: int = 1) -> train_step.TrainStep:
    config, mesh = _config(train__microbatches=microbatches), tiny.mesh(*shape)
    built = train_step.build(config, mesh, tiny.PAD)
    chain = _keeps_gradients(built.optimizer)
    return dataclasses.replace(
        built,
        optimizer=chain,
        state=state.abstract_state(built.objective, chain, False, mesh),
        function=train_step.step_function(config, built.objective, chain),
    )


@functools.cache
def _start() -> state.TrainState:
    """The state at step 0, made on one device."""
    step = _step((1, 1, 1))
    with jax.set_mesh(step.mesh):
        return jax.tree.map(np.array, step.init())


@functools.cache
def _trained(shape: tuple[int, int, int], microbatches: int) -> tuple[list[dict[str, float]], dict, dict]:
    """Metrics of three steps on one batch, the first step's gradients, and the last parameters."""
    step = _step(shape, microbatches)
    with jax.set_mesh(step.mesh):
        batch = jax.device_put(tiny.batch(step.config), sharding.batch_sharding(step.mesh))
        placed = jax.tree.map(lambda x: x.sharding, step.state)
        compiled = step.compile({"xla_backend_optimization_level": 0})  # fast to compile
        current, history, gradients = jax.device_put(_start(), placed), [], None
        for _ in range(STEPS):
            current, metrics = compiled(current, batch)
            history.append({key: float(value) for key, value in metrics.items()})
            gradients = gradients or _by_name(current.opt_state[0])
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), current, placed))
    return history, gradients, _by_name(current.params)


@pytest.mark.parametrize(
    "shape, microbatches",
    [((8, 1, 1), 1), ((1, 1, 2), 1), ((2, 2, 2), 1), ((2, 2, 2), 4)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else f"K={value}",
)
def test_every_mesh_and_every_number_of_microbatches_trains_alike(capfd, shape, microbatches):
    expected, expected_gradients, expected_params = _trained((1, 1, 1), 1)
    capfd.readouterr()
    found, gradients, params = _trained(shape, microbatches)
    # XLA says so where it finds no way between two layouts but to make an activation whole on every device.
    assert "rematerialization" not in capfd.readouterr().err
    assert found[-1]["loss"] < found[0]["loss"]
    start = _by_name(_start().params)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in b:
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-5), key
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-5, rtol=1e-5, err_msg=name)
        if not name.endswith("key/bias"):  # its gradient is rounding errors alone, which Adam scales up to its rate
            largest = np.abs(gradient).max()
            np.testing.assert_allclose(gradients[name], gradient, atol=2e-3 * largest, err_msg=name)  # small ones too
            # Adam divides a gradient by its own size: of one near zero, the order of the sums decides much of the step.
            # So the whole array's way from the start is compared, with its length.
            way = np.linalg.norm(expected_params[name] - start[name])
            assert np.linalg.norm(params[name] - expected_params[name]) < 0.01 * way, name


def test_every_mesh_starts_alike():
    config, mesh = _config(), tiny.mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        found = train_step.build(config, mesh).init()
    jax.tree.map(np.testing.assert_array_equal, found.params, _start().params)


# What the step constrains


def _step_constraints(**changes) -> tuple[collections.Counter, Objective]:
    config, mesh = _config(**changes), tiny.mesh(2, 2, 2)
    built = train_step.build(config, mesh, tiny.PAD)
    with jax.set_mesh(mesh):
        jaxpr = jax.make_jaxpr(built.function)(built.state, tiny.batch(config)).jaxpr
    return collections.Counter(map(tuple, tiny.constraints(jaxpr))), built.objective


ROWS = ("data", "fsdp")
HEADS = (ROWS, None, "tensor", None)  # queries, keys, values and outputs of attention
MLP = (ROWS, None, "tensor")  # between an MLP's two products
STREAM = (ROWS, None, None)  # [B, L, D] between layers
LOOKUP_IDS, LOOKUP = ("data", None), ("data", None, "fsdp")  # token ids, and the rows of the embedding
LOGITS = (None, "tensor")  # of the device's own rows


# What the backward pass makes again, and so constrains again. Image layers, unimodal, multimodal layers: 4 attentions
# (one to the image) with 3 MLPs. Of 7 sums into the stream each block's last is no part of what is made again.
AGAIN = {
    "none": {},
    "attention": {HEADS: 4, MLP: 3, STREAM: 4},  # the outputs of 4 attentions; queries, keys and values are kept
    "full": {HEADS: 4 * 4, MLP: 3, STREAM: 4},
}


@pytest.mark.parametrize("remat", AGAIN)
def test_every_constraint_of_the_step_is_there(remat):
    found, _ = _step_constraints(model__remat=remat)
    forward = {
        HEADS: 4 * (4 + 2),  # the blocks' attentions and the two poolers'
        MLP: 3,
        STREAM: 7 + 3,  # after each attention and MLP; where image and text enter their layers; after the lookup
        LOOKUP: 1,
        LOGITS: 1,
    }
    # Each has a twin for its cotangent. Integers have none; logits are always made again.
    expected = collections.Counter(forward) + collections.Counter(forward)
    expected += collections.Counter(AGAIN[remat]) + collections.Counter({LOOKUP_IDS: 1, LOGITS: 1})
    assert found == expected


def test_microbatches_and_the_sum_of_gradients_are_laid_out():
    found, objective = _step_constraints(train__microbatches=2)
    assert found[(None, ROWS, None, None, None)] == 1  # images in parts
    # Text, three masks and labels in parts, and both embeddings' cotangents; joined, the two embeddings.
    assert found[(None, ROWS, None)] == 5 + 2 and found[(ROWS, None)] == 2
    _, logical = objective.abstract_parameters()
    names = jax.tree.leaves(logical, is_leaf=lambda node: type(node) is tuple)
    sums = collections.Counter(tuple(sharding.spec(*axes)) for axes in names)
    assert all(found[spec] >= count for spec, count in sums.items())
    assert sums[(None, "fsdp", "tensor", None)] == 12 == found[(None, "fsdp", "tensor", None)]


def test_a_trace_without_a_mesh_is_not_taken_for_one_with():
    config = _config()
    objective = objectives.build(config, tiny.PAD)
    loss = jax.jit(objective.loss)
    arguments = (objective.abstract_parameters()[0], tiny.batch(config), jax.random.key(0))

    def found():
        return collections.Counter(map(tuple, tiny.constraints(loss.trace(*arguments).jaxpr.jaxpr)))

    assert not found()
    with jax.set_mesh(tiny.mesh(2, 2, 2)):
        assert found()[STREAM] == 10
    assert not found()


def test_a_mesh_that_a_parameter_does_not_fit_is_refused_before_anything_compiles():
    objective = objectives.build(_config(model__width=24, model__heads=2))
    with pytest.raises(sharding.CocaError, match=re.escape("image_encoder/layers/blocks/attention/key/")) as caught:
        state.abstract_state(objective, optax.sgd(0.1), False, tiny.mesh(1, 2, 4))
    assert "has heads = 2, which does not divide over tensor = 4: set train.mesh.tensor" in str(caught.value)
