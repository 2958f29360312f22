"""TrainState: what training changes, its abstract form, its shardings, and its sharded initialisation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from coca_jax.distributed.sharding import Axis, check_parameters, replicated, shardings
from coca_jax.models import coca


@struct.dataclass
class TrainState:
    """Attributes:
    step: int32 scalar, the number of steps taken.
    params: plain nested dict, float32.
    average: exponential moving average of `params`, None where `ema_decay` is 0.
    opt_state: optax' state.
    """

    step: jax.Array
    params: Any
    average: Any
    opt_state: Any

    @property
    def evaluated_params(self) -> Any:
        """The parameters that evaluations use: the average where there is one."""
        return self.params if self.average is None else self.average


@dataclasses.dataclass(frozen=True)
class StatePlan:
    """How a run's state is made: nothing in it is an array.

    Attributes:
      abstract: TrainState of ShapeDtypeStructs that carry their shardings; also the target of every restore.
      logical: the parameters' logical axes.
    """

    model: coca.Coca
    optimizer: optax.GradientTransformation
    average: bool
    abstract: TrainState
    logical: Any

    def init(self, seed: int) -> TrainState:
        """Fresh state; each array is made where it lives, nothing is ever held unsharded."""
        out = jax.tree.map(lambda x: x.sharding, self.abstract)
        return jax.jit(lambda: _init(self.model, self.optimizer, self.average, seed), out_shardings=out)()


def plan(
    model: coca.Coca, optimizer: optax.GradientTransformation, average: bool, mesh: jax.sharding.Mesh
) -> StatePlan:
    """Shapes and shardings of the whole state on `mesh`; allocates nothing.

    Raises:
      CocaError: a parameter does not divide over the mesh, or a large one would be left whole on every device.
    """
    params, logical = coca.abstract_parameters(model)
    check_parameters(mesh, params, logical)
    abstract = jax.eval_shape(lambda: _init(model, optimizer, average, 0))
    param_shardings = shardings(mesh, logical)
    opt_shardings = shardings(mesh, _optimizer_axes(optimizer, abstract.opt_state, params, logical))
    placed = TrainState(
        step=replicated(mesh),
        params=param_shardings,
        average=param_shardings if average else None,
        opt_state=opt_shardings,
    )

    def with_sharding(x, s):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)

    return StatePlan(model, optimizer, average, jax.tree.map(with_sharding, abstract, placed), logical)


def _init(model: coca.Coca, optimizer: optax.GradientTransformation, average: bool, seed: int) -> TrainState:
    params = coca.init(model, jax.random.key(seed))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        average=params if average else None,
        opt_state=optimizer.init(params),
    )


def _optimizer_axes(optimizer: optax.GradientTransformation, opt_state: Any, params: Any, logical: Any) -> Any:
    """Logical axes of the optimiser's arrays: a moment has its parameter's, a factored one those that it kept."""

    def masked(node):
        return isinstance(node, optax.MaskedNode)  # stands for a parameter that another rule updates

    def axes_of(x, param, axes):
        return x if masked(x) else _kept_axes(x.shape, param.shape, axes.names)

    boxed = jax.tree.map(_Names, logical, is_leaf=lambda node: isinstance(node, tuple))
    return optax.tree.map_params(
        optimizer, axes_of, opt_state, params, boxed, transform_non_params=lambda _: (), is_leaf=masked
    )


@dataclasses.dataclass(frozen=True)
class _Names:  # a leaf: tuples would be taken for subtrees
    names: tuple[Axis, ...]


def _kept_axes(shape: tuple[int, ...], param_shape: tuple[int, ...], axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    if shape == param_shape:
        return axes
    for dropped in range(len(param_shape)):
        if shape == param_shape[:dropped] + param_shape[dropped + 1 :]:
            return axes[:dropped] + axes[dropped + 1 :]
    return (Axis.KERNEL,) * len(shape)  # Adafactor's placeholders of shape (1,)
