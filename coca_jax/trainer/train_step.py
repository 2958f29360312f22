"""The train step of a config: a pure function of state and batch, and all that it is compiled with.

Training, plans and benchmarks build it here, so that a plan describes the step that is trained.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType

from coca_jax import objectives
from coca_jax.config import Config, MeshConfig
from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import MESH_AXES, mesh_shape
from coca_jax.objectives import accumulation
from coca_jax.objectives.base import FROZEN, Batch, Metrics, Objective, from_names, labels_of, merge, split
from coca_jax.trainer import flops, optimizer
from coca_jax.trainer.state import TrainState, abstract_state, fresh_state

StepFunction = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A step on a mesh whose devices need not exist; nothing in it is an array."""

    config: Config
    mesh: Any  # a Mesh, or an AbstractMesh, for which nothing can be compiled
    objective: Objective
    optimizer: optax.GradientTransformation
    state: TrainState  # shapes, dtypes and shardings; also the target of every restore
    batch: dict[str, jax.ShapeDtypeStruct]  # those of a global batch
    # Those of the function: the batch's, or `tokens` in place of its `image`; see `compile_encoder`.
    inputs: dict[str, jax.ShapeDtypeStruct]
    function: StepFunction  # to be traced under `jax.set_mesh`

    def init(self) -> TrainState:
        """The state at step 0; each array is made where it lives, nothing is ever held unsharded."""
        average, seed = self.state.average is not None, self.config.train.seed
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        return jax.jit(lambda: fresh_state(self.objective, self.optimizer, average, seed), out_shardings=shardings)()

    def compile(self, options: dict[str, Any] | None = None) -> jax.stages.Compiled:
        """The step, compiled for the mesh's devices; the old state's memory becomes the new one's."""
        shardings = jax.tree.map(lambda x: x.sharding, self.state)
        jitted = jax.jit(self.function, donate_argnums=0, out_shardings=(shardings, None))
        with jax.set_mesh(self.mesh):
            return jitted.lower(self.state, self.inputs).compile(options)

    def compile_encoder(self) -> jax.stages.Compiled:
        """The frozen image encoder of an objective that `encodes_first`: (its parameters, images) to tokens."""
        jitted = jax.jit(self.objective.encode, out_shardings=sharding.batch_sharding(self.mesh))
        with jax.set_mesh(self.mesh):
            return jitted.lower(encoder_parameters(self.state.params), self.batch["image"]).compile()


def build(config: Config, mesh: sharding.AnyMesh, pad_id: int = 0) -> TrainStep:
    """The train step of a config on a mesh, for a vocabulary with this pad; a CocaError if they do not fit each other."""
    sharding.check_batch_size(mesh, config.train.batch_size, config.train.microbatches)
    objective = objectives.build(config, pad_id)
    # A search builds many steps that differ in what the state does not depend on.
    plain = _replaced(config, mesh=MeshConfig(), microbatches=1)
    plain = dataclasses.replace(plain, model=dataclasses.replace(config.model, remat="none"))
    chain, state = _optimizer_and_state(plain, mesh)
    arrays, placed = objective.batch(), sharding.batch_sharding(mesh)
    batch = {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed) for key, x in arrays.items()}
    inputs = batch
    if objective.encodes_first:
        tokens = jax.eval_shape(objective.encode, encoder_parameters(state.params), arrays["image"])
        tokens = jax.ShapeDtypeStruct(tokens.shape, tokens.dtype, sharding=placed)
        inputs = {key: x for key, x in batch.items() if key != "image"} | {"tokens": tokens}
    return TrainStep(config, mesh, objective, chain, state, batch, inputs, step_function(config, objective, chain))


def encoder_parameters(params: Any) -> Any:
    """The image encoder's part of a tree of parameters, as `Objective.encode` takes it."""
    return {"image_encoder": params["image_encoder"]}


@functools.lru_cache(maxsize=8)
def _optimizer_and_state(config: Config, mesh: sharding.AnyMesh) -> tuple[optax.GradientTransformation, TrainState]:
    objective = objectives.build(config)
    labels = labels_of(objective, objective.abstract_parameters()[0])
    trained = from_names({name: label for name, label in labels.items() if label != FROZEN})
    chain = optimizer.build(config.optimizer, config.train.steps, objective.groups, trained)
    return chain, abstract_state(objective, chain, bool(config.optimizer.ema_decay), mesh)


def step_function(config: Config, objective: Objective, chain: optax.GradientTransformation) -> StepFunction:
    """The function (state, batch) -> (state, metrics) of an objective and its optimiser.

    Its randomness is fold_in(seed, step): there is no generator state to save. Frozen parameters are constants of it.
    """
    gradients_of = accumulation.gradients(objective, config.train.microbatches)
    rates = {
        name: optimizer.learning_rate(config.optimizer, group.peak_learning_rate, config.train.steps)
        for name, group in objective.groups.items()
    }

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        trained, frozen = split(objective, state.params)
        gradients, metrics = gradients_of(trained, frozen, batch, key)
        updates, opt_state = chain.update(gradients, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        average = state.average
        if average is not None:
            # Warmed up like TensorFlow's: early averages forget the random start quickly.
            rate = jnp.minimum(config.optimizer.ema_decay, (1.0 + state.step) / (10.0 + state.step))
            average = optax.incremental_update(trained, average, 1.0 - rate)
        metrics |= {"gradient_norm": optax.tree.norm(gradients)}
        for name, rate_at in rates.items():
            metrics["learning_rate" if len(rates) == 1 else f"learning_rate/{name}"] = rate_at(state.step)
        return TrainState(state.step + 1, merge(trained, frozen), average, opt_state), metrics

    return step


def abstract_mesh(config: Config, devices: int) -> AbstractMesh:
    """The mesh that `make_mesh` would choose for so many devices, without the devices."""
    shape = mesh_shape(config.train.mesh, config.model, devices)
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def bytes_per_device(tree: Any) -> int:
    """Bytes that the arrays of a tree of sharded ShapeDtypeStructs take on each device, before the device pads them."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def step_flops(config: Config) -> float:
    """FLOPs that one step computes on all devices together, what is rematerialised included; whatever the mesh."""
    train = config.train
    parts = 2 if train.microbatches % 2 == 0 else train.microbatches  # two cost as much as many, and are counted once
    return _counted(_replaced(config, mesh=MeshConfig(), microbatches=parts), "step")


def model_flops(config: Config) -> float:
    """FLOPs that one step needs: by convention three times those of the forward pass (PaLM, arXiv 2204.02311, app. B); with
    frozen parameters those of the forward pass and of the gradients of the others. Model FLOPs utilisation (MFU) counts
    no others."""
    config = _replaced(config, mesh=MeshConfig(), microbatches=1)
    if FROZEN not in objectives.build(config).labels.values():
        return 3 * _counted(config, "forward")
    return _counted(dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none")), "gradient")


@functools.cache
def encoder_flops(config: Config) -> float:
    """FLOPs of `TrainStep.compile_encoder`, once a step; 0 if there is none."""
    mesh = abstract_mesh(config, 1)
    step = build(config, mesh)
    if not step.objective.encodes_first:
        return 0.0
    with jax.sharding.use_abstract_mesh(mesh):
        return flops.count(step.objective.encode, encoder_parameters(step.state.params), step.batch["image"])


def _replaced(config: Config, **train: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@functools.cache
def _counted(config: Config, part: str) -> float:
    """FLOPs of the "step" on one device, or without its optimiser ("gradient"), or of the "forward" pass alone."""
    mesh = abstract_mesh(config, 1)
    step = build(config, mesh)

    def forward(state, batch):
        return step.objective.loss(state.params, batch, jax.random.key(0))[0]

    def gradient(state, batch):
        trained, frozen = split(step.objective, state.params)
        return accumulation.gradients(step.objective)(trained, frozen, batch, jax.random.key(0))

    functions = {"step": step.function, "forward": forward, "gradient": gradient}
    with jax.sharding.use_abstract_mesh(mesh):
        return flops.count(functions[part], step.state, step.inputs) + encoder_flops(config)
