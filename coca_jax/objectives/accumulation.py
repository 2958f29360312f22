"""The exact gradient of an objective, from a whole batch or from parts of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from coca_jax.distributed.sharding import Axis, constrain, constrain_tree
from coca_jax.objectives.base import Batch, Metrics, Objective, merge, split

# (trained parameters, frozen parameters, batch, key) -> (gradients of the trained ones, metrics)
GradientFunction = Callable[[Any, Any, Batch, Array], tuple[Any, Metrics]]


def gradients(objective: Objective, microbatches: int = 1) -> GradientFunction:
    """A function that computes the gradient of the whole batch's loss with respect to the trained parameters.

    With several microbatches the gradient is the same (GradCache, arXiv 2101.06983). First come the coupled arrays of all
    parts (for pretraining, the embeddings); then the coupled loss over all of them, with its gradient with respect to
    them; then, part by part, the gradients of the partial loss plus the coupled arrays weighted with that.
    """

    def whole(trained: Any, frozen: Any, batch: Batch, key: Array) -> tuple[Any, Metrics]:
        def loss(trained: Any) -> tuple[Array, Metrics]:
            return objective.loss(merge(trained, frozen), batch, key)

        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
        return gradient, metrics

    def accumulated(trained: Any, frozen: Any, batch: Batch, key: Array) -> tuple[Any, Metrics]:
        batch, totals = objective.prepare(batch, key)
        parts = jax.tree.map(lambda x: _split(x, microbatches), batch)
        coupled_loss, metrics, cotangents = _cotangents(objective, merge(trained, frozen), parts, microbatches)

        def part_loss(trained: Any, part: Batch, cotangents: Any) -> tuple[Array, tuple[Array, Metrics]]:
            loss, more, coupled = objective.partial_loss(merge(trained, frozen), part, totals)
            weighted = jax.tree.map(lambda x, cotangent: jnp.sum(x * cotangent), coupled, cotangents)
            return sum(jax.tree.leaves(weighted), start=loss), (loss, more)

        def add(sums: Any, xs: Any) -> tuple[Any, None]:
            losses, gradient = jax.tree.map(jnp.add, sums, part_gradient(trained, *xs))
            # The sum lives as long as the loop: laid out as the parameters, or it would lie whole on every device.
            return (losses, constrain_tree(gradient, axes)), None

        part_gradient = jax.value_and_grad(part_loss, has_aux=True)
        axes, _ = split(objective, objective.abstract_parameters()[1])
        first = jax.tree.map(lambda x: x[0], (parts, cotangents))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part_gradient, trained, *first))
        ((_, (loss, more)), gradient), _ = jax.lax.scan(add, zeros, (parts, cotangents))
        return gradient, {"loss": coupled_loss + loss, **metrics, **more}

    return whole if microbatches == 1 else accumulated


def _cotangents(objective: Objective, params: Any, parts: Batch, count: int) -> tuple[Array | float, Metrics, Any]:
    """The coupled loss over all parts, its metrics, and its gradient with respect to each part's coupled arrays [K, …]:
    of a scalar, which all parts share, each gets a K-th."""
    by_part = jax.lax.map(lambda part: objective.coupled(params, part), parts)
    if by_part is None:
        return 0.0, {}, None
    coupled = jax.tree.map(lambda x: _join(x) if x.ndim > 1 else x[0], by_part)
    (loss, metrics), gradient = jax.value_and_grad(objective.coupled_loss, has_aux=True)(coupled)
    return loss, metrics, jax.tree.map(lambda x: _split(x, count) if x.ndim else jnp.full(count, x / count), gradient)


def _split(x: Array, parts: int) -> Array:
    """[B, …] to [K, B / K, …]. Part k takes every K-th row, so that each device keeps the rows that it has."""
    x = jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)
    return constrain(x, Axis.MICROBATCHES, Axis.BATCH, *(Axis.LENGTH,) * (x.ndim - 2))


def _join(x: Array) -> Array:
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])
    return constrain(x, Axis.BATCH, *(Axis.LENGTH,) * (x.ndim - 1))
