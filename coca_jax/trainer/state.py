"""TrainState: the arrays that training changes, their values at step 0, and their shapes and shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from coca_jax.distributed.sharding import AnyMesh, check_parameters, shardings
from coca_jax.models import coca
from coca_jax.objectives.base import Objective, merge, split


@struct.dataclass
class TrainState:
    """The state of a run: input and output of a train step."""

    step: jax.Array  # int32 scalar, the number of steps taken
    params: Any  # plain nested dict, float32; the frozen ones among them
    average: Any  # exponential moving average of the trained parameters, None where `ema_decay` is 0
    opt_state: Any  # optax' state, of the trained parameters

    @property
    def evaluated_params(self) -> Any:
        """The parameters that evaluations use: their average where there is one."""
        return self.params if self.average is None else merge(self.average, self.params)


def fresh_state(objective: Objective, optimizer: optax.GradientTransformation, average: bool, seed: int) -> TrainState:
    """The state at step 0. Its average, if it keeps one, begins at the parameters."""
    params = coca.init(objective.model, jax.random.key(seed))
    trained, _ = split(objective, params)
    return TrainState(jnp.zeros((), jnp.int32), params, trained if average else None, optimizer.init(trained))


def abstract_state(
    objective: Objective, optimizer: optax.GradientTransformation, average: bool, mesh: AnyMesh
) -> TrainState:
    """ShapeDtypeStructs of the whole state, with their shardings on `mesh`; with the errors of `check_parameters`."""
    params, logical = objective.abstract_parameters()
    check_parameters(mesh, params, logical)
    abstract = jax.eval_shape(lambda: fresh_state(objective, optimizer, average, 0))
    replicated: Any = NamedSharding(mesh, PartitionSpec())
    placed = shardings(mesh, logical)
    trained, _ = split(objective, placed)
    moments = _optimizer_shardings(optimizer, abstract.opt_state, split(objective, params)[0], trained, replicated)
    whole = TrainState(replicated, placed, trained if average else None, moments)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, whole)


def average_of(objective: Objective, params: Any) -> Any:
    """An average that begins at these parameters: a copy, since the step gives the memory of both back."""
    return jax.tree.map(jnp.copy, split(objective, params)[0])


def _optimizer_shardings(
    optimizer: optax.GradientTransformation, opt_state: Any, params: Any, placed: Any, replicated: NamedSharding
) -> Any:
    """Shardings of the optimiser's arrays: a moment has its parameter's, a factored one what remains of it; else `replicated`."""

    def masked(node):
        return isinstance(node, optax.MaskedNode)  # stands for a parameter that another rule updates

    def of_moment(x, param, sharding):
        return x if masked(x) else NamedSharding(replicated.mesh, _remaining(x.shape, param.shape, sharding.spec))

    return optax.tree.map_params(
        optimizer, of_moment, opt_state, params, placed, transform_non_params=lambda _: replicated, is_leaf=masked
    )


def _remaining(shape: tuple[int, ...], param_shape: tuple[int, ...], spec: PartitionSpec) -> PartitionSpec:
    """The spec of an array that has all axes of a parameter, or all but one."""
    if shape == param_shape:
        return spec
    for dropped in range(len(param_shape)):
        if shape == param_shape[:dropped] + param_shape[dropped + 1 :]:
            return PartitionSpec(*spec[:dropped], *spec[dropped + 1 :])
    return PartitionSpec(*[None] * len(shape))  # Adafactor's placeholders of shape (1,)
