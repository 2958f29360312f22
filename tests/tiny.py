"""The smallest CoCa and its batches, for tests of the step and of how it is laid out."""

import math

import jax
import numpy as np
import optax
from jax.sharding import AxisType

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.distributed.mesh import MESH_AXES
from coca_jax.models import coca
from coca_jax.objectives.base import Group
from coca_jax.trainer import optimizer

PAD = 0


def config(**changes) -> config_lib.Config:
    """A model of one layer a stack at 16 pixels; `changes` are keys with __ for the dots."""
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(size=16, patch=8, layers=1, mlp=32)
    values.model.pooler.update(queries=2, hidden_multiple=1)
    values.model.text.update(vocabulary_size=32, length=8, unimodal_layers=1, multimodal_layers=1, mlp=32)
    values.optimizer.update(peak_learning_rate=1e-2, warmup_fraction=0.0)
    values.train.update(steps=10, batch_size=8)
    values.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config_lib.from_config_dict(values)


def model(config: config_lib.Config) -> coca.Coca:
    """The model of a config, with the parts that its losses need."""
    return objectives.build(config).model


def mesh(*shape: int) -> jax.sharding.Mesh:
    """data x fsdp x tensor, of the first devices."""
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch(config: config_lib.Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Random pictures, and texts of random lengths."""
    rng = np.random.default_rng(seed)
    size, rows, length = config.model.image.size, config.train.batch_size, config.model.text.length
    text = rng.integers(4, config.model.text.vocabulary_size, (rows, length)).astype(np.int32)
    text[np.arange(length) >= rng.integers(3, length + 1, (rows, 1))] = PAD
    return {"image": rng.integers(0, 256, (rows, size, size, 3)).astype(np.uint8), "text": text}


def constraints(jaxpr) -> list[jax.sharding.PartitionSpec]:
    """The specs of all sharding constraints in a jaxpr, those inside scans, remats and jits too; loops' bodies once."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "sharding_constraint":
            found.append(eqn.params["sharding"].spec)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += constraints(inner)
    return found


def spread_parameters(abstract):
    """Random parameters of these shapes, far enough from zero to tell pictures apart."""
    rng = np.random.default_rng(0)
    kinds = {"scale": (1, 0.1), "bias": (0, 0.1), "temperature": (0.07, 0), "queries": (0, 1)}

    def parameter(path, leaf):
        mean, deviation = kinds.get(path[-1].key, (0, 0.4))
        return (mean + rng.normal(0, 1, leaf.shape) * deviation).astype(np.float32)

    return jax.tree_util.tree_map_with_path(parameter, abstract)


def largest(text: str) -> int:
    """Elements of the largest float32 array in a compiled program."""
    shapes = [part.split("]")[0] for part in text.split("f32[")[1:]]
    return max(math.prod(int(n) for n in shape.split(",") if n) for shape in shapes)


def chain(config: config_lib.OptimizerConfig, steps: int, params) -> optax.GradientTransformation:
    """The optimiser of one group with all of these parameters."""
    groups = {"all": Group(config.peak_learning_rate, config.weight_decay)}
    return optimizer.build(config, steps, groups, jax.tree.map(lambda _: "all", params))
