"""TrainState: the arrays that training changes, its abstract form, its shardings, and its sharded initialisation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import AbstractMesh

from coca_jax.distributed.sharding import Axis, check_parameters, replicated, shardings
from coca_jax.objectives.base import Objective, merge, split


@struct.dataclass
class TrainState:
    """Attributes:
    step: int32 scalar, the number of steps taken.
    params: plain nested dict, float32; the frozen ones among them.
    average: exponential moving average of the trained parameters, None where `ema_decay` is 0.
    opt_state: optax' state, of the trained parameters.
    """

    step: jax.Array
    params: Any
    average: Any
    opt_state: Any

    @property
    def evaluated_params(self) -> Any:
        """The parameters that evaluations use: their average where there is one."""
        return self.params if self.average is None else merge(self.average, self.params)


@dataclasses.dataclass(frozen=True)
class StatePlan:
    """Shapes, shardings and initialisation of a run's state; nothing in it is an array.

    Attributes:
      abstract: TrainState of ShapeDtypeStructs that carry their shardings; also the target of every restore.
      logical: the parameters' logical axes.
    """

    objective: Objective
    optimizer: optax.GradientTransformation
    average: bool
    abstract: TrainState
    logical: Any

    def init(self, seed: int) -> TrainState:
        """Fresh state; each array is made where it lives, nothing is ever held unsharded."""
        out = jax.tree.map(lambda x: x.sharding, self.abstract)
        return jax.jit(lambda: _init(self.objective, self.optimizer, self.average, seed), out_shardings=out)()


def plan(
    objective: Objective, optimizer: optax.GradientTransformation, average: bool, mesh: jax.sharding.Mesh | AbstractMesh
) -> StatePlan:
    """Shapes and shardings of the whole state on `mesh`; allocates nothing.

    Raises:
      CocaError: a parameter has no label, does not divide over the mesh, or is large and would be left whole on every
        device.
    """
    params, logical = objective.abstract_parameters()
    check_parameters(mesh, params, logical)
    abstract = jax.eval_shape(lambda: _init(objective, optimizer, average, 0))
    (trained, _), (trained_axes, _) = split(objective, params), split(objective, logical)
    alone: Any = replicated(mesh)
    placed = TrainState(
        step=alone,
        params=shardings(mesh, logical),
        average=shardings(mesh, trained_axes) if average else None,
        opt_state=shardings(mesh, _optimizer_axes(optimizer, abstract.opt_state, trained, trained_axes)),
    )
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, placed)
    return StatePlan(objective, optimizer, average, abstract, logical)


def _init(objective: Objective, optimizer: optax.GradientTransformation, average: bool, seed: int) -> TrainState:
    params = objective.init(jax.random.key(seed))
    trained, _ = split(objective, params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        average=trained if average else None,
        opt_state=optimizer.init(trained),
    )


def _optimizer_axes(optimizer: optax.GradientTransformation, opt_state: Any, params: Any, logical: Any) -> Any:
    """Logical axes of the optimiser's arrays: a moment has its parameter's, a factored one those that remain in it."""

    def masked(node):
        return isinstance(node, optax.MaskedNode)  # stands for a parameter that another rule updates

    def axes_of(x, param, axes):
        return x if masked(x) else _remaining_axes(x.shape, param.shape, axes.names)

    boxed = jax.tree.map(_Names, logical, is_leaf=lambda node: isinstance(node, tuple))
    return optax.tree.map_params(
        optimizer, axes_of, opt_state, params, boxed, transform_non_params=lambda _: (), is_leaf=masked
    )


@dataclasses.dataclass(frozen=True)
class _Names:  # a leaf: tuples would be taken for subtrees
    names: tuple[Axis, ...]


def _remaining_axes(shape: tuple[int, ...], param_shape: tuple[int, ...], axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    if shape == param_shape:
        return axes
    for dropped in range(len(param_shape)):
        if shape == param_shape[:dropped] + param_shape[dropped + 1 :]:
            return axes[:dropped] + axes[dropped + 1 :]
    return (Axis.KERNEL,) * len(shape)  # Adafactor's placeholders of shape (1,)
