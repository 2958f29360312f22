"""The train step of a config and all that it is compiled with, on a mesh whose devices need not exist.

Training, plans and benchmarks build it here, so that a plan describes the step that is trained.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh

from coca_jax import objectives
from coca_jax.config import Config, MeshConfig
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import MESH_AXES, mesh_shape
from coca_jax.objectives.base import FROZEN, Objective, from_names, labels_of
from coca_jax.trainer import flops, optimizer, state, step


@dataclasses.dataclass(frozen=True)
class Program:
    """A train step and all that it is compiled with; nothing in it is an array.

    Attributes:
      plan: shapes, dtypes and shardings of the state.
      batch: those of a global batch.
    """

    config: Config
    mesh: Mesh | AbstractMesh
    objective: Objective
    plan: state.StatePlan
    step: step.TrainStep
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def device_mesh(self) -> Mesh:
        """The mesh, of which the devices, or descriptions of them, exist."""
        assert isinstance(self.mesh, Mesh)
        return self.mesh

    def compile(self) -> jax.stages.Compiled:
        """The step, compiled for the mesh's devices. What the compiler raises goes through."""
        with jax.set_mesh(self.device_mesh):
            return step.compile_step(self.step, self.plan.abstract, self.batch)


def build(config: Config, mesh: Mesh | AbstractMesh, pad_id: int = 0) -> Program:
    """The program of a config on a mesh.

    Args:
      pad_id: the vocabulary's. It is a constant in the program, whose cost is the same for every id.

    Raises:
      CocaError: they do not fit each other.
    """
    sharding.check_batch_size(mesh, config.train.batch_size, config.train.microbatches)
    objective = objectives.build(config, pad_id)
    # A search builds many programs that differ in what the state does not depend on.
    whole = _replaced(config, mesh=MeshConfig(), microbatches=1)
    plan = _plan(dataclasses.replace(whole, model=dataclasses.replace(config.model, remat="none")), mesh)
    plan = dataclasses.replace(plan, objective=objective)
    placed = sharding.batch_sharding(mesh)
    batch = {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed) for key, x in objective.batch().items()}
    return Program(config, mesh, objective, plan, step.train_step(config, objective, plan.optimizer), batch)


@functools.lru_cache(maxsize=8)
def _plan(config: Config, mesh: Mesh | AbstractMesh) -> state.StatePlan:
    objective = objectives.build(config)
    return state.plan(objective, optimizer_of(config, objective), bool(config.optimizer.ema_decay), mesh)


def optimizer_of(config: Config, objective: Objective) -> optax.GradientTransformation:
    """The optimiser of the objective's trained parameters."""
    labels = labels_of(objective, objective.abstract_parameters()[0])
    trained = from_names({name: label for name, label in labels.items() if label != FROZEN})
    return optimizer.build(config.optimizer, config.train.steps, objective.groups, trained)


def abstract_mesh(config: Config, devices: int) -> AbstractMesh:
    """The mesh that `make_mesh` would choose for so many devices, without the devices."""
    shape = mesh_shape(config.train.mesh, config.model, devices)
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def bytes_per_device(tree: Any) -> int:
    """Bytes that the arrays of a tree of sharded ShapeDtypeStructs take on each device, before the device pads them."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def step_flops(config: Config) -> float:
    """FLOPs that one step computes on all devices together, what is rematerialised included; whatever the mesh."""
    train = config.train
    parts = 2 if train.microbatches % 2 == 0 else train.microbatches  # two cost as much as many, and are counted once
    return _counted(_replaced(config, mesh=MeshConfig(), microbatches=parts), False)


def model_flops(config: Config) -> float:
    """FLOPs that one step needs by convention: three times those of the forward pass (PaLM, arXiv 2204.02311, app. B).
    Model FLOPs utilisation (MFU) counts no others."""
    return 3 * _counted(_replaced(config, mesh=MeshConfig(), microbatches=1), True)


def _replaced(config: Config, **train: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@functools.cache
def _counted(config: Config, forward: bool) -> float:
    """FLOPs of the step, or of its forward pass alone, on one device."""
    mesh = abstract_mesh(config, 1)
    program = build(config, mesh)

    def loss(params, batch):
        return program.objective.loss(params, batch, jax.random.key(0))[0]

    with jax.sharding.use_abstract_mesh(mesh):
        if forward:
            return flops.count(loss, program.plan.abstract.params, program.batch)
        return flops.count(program.step, program.plan.abstract, program.batch)
