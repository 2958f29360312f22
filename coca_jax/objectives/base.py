"""The contract of an objective: the batch that it needs, its loss, its model, and a label for every parameter."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util
from jax import Array

from coca_jax.errors import CocaError
from coca_jax.models import coca

Batch = dict[str, Array]
Metrics = dict[str, Array]

# A nested dict's leaves by their names, such as "poolers/contrastive/queries", and the inverse.
by_name = functools.partial(traverse_util.flatten_dict, sep="/")
from_names = functools.partial(traverse_util.unflatten_dict, sep="/")

FROZEN = "frozen"  # the label of parameters that get no gradient, no optimiser state, no average and no weight decay


@dataclasses.dataclass(frozen=True)
class Group:
    """Settings of the optimiser for the parameters of one label."""

    peak_learning_rate: float
    weight_decay: float


class Objective(abc.ABC):
    """The contract of what a run trains for.

    The loss of a batch is a sum over its rows, divided by totals of the whole batch (`partial_loss`), plus optionally one
    that couples the rows (`coupled_loss`, of the arrays that `coupled` computes): `accumulation` works on its parts.
    """

    model: coca.Coca  # with only the parts that the objective needs
    groups: Mapping[str, Group]
    # From beginnings of parameters' names, such as "poolers/contrastive", to `FROZEN` or a group; the first that fits.
    labels: Mapping[str, str]
    # Beginnings of names that a run or import, from which parameters are taken, may lack (a head) or have in vain.
    new_parameters: tuple[str, ...] = ()
    unused_parameters: tuple[str, ...] = ()
    # Whether the image encoder is frozen and `encode` a program of its own, before the step: its `tokens` take the place
    # of the batch's `image`, and can be kept.
    encodes_first: bool = False

    @abc.abstractmethod
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a global batch's arrays, by name; a CocaError if the config's data cannot give them."""

    @abc.abstractmethod
    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        """The sum over the rows of a prepared batch, or of a part of it, divided by the whole batch's totals; metrics that
        likewise add up over the parts; and what `coupled` returns for these rows."""

    def encode(self, params: Any, images: Array) -> Array:
        """The image encoder's tokens [B, …] of a batch's `image`, from parameters with at least the encoder's."""
        raise NotImplementedError

    def prepare(self, batch: Batch, key: Array) -> tuple[Batch, Any]:
        """The batch with all that is random or reaches over rows settled, so that it can be split, and its totals."""
        return batch, ()

    def coupled(self, params: Any, batch: Batch) -> Any:
        """The input of `coupled_loss`: arrays [B, …] and scalars that depend on the parameters alone; None if unused."""
        return None

    def coupled_loss(self, coupled: Any) -> tuple[Array, Metrics]:
        """The scalar loss that couples the rows of the whole batch, and its metrics."""
        raise NotImplementedError

    def loss(self, params: Any, batch: Batch, key: Array) -> tuple[Array, Metrics]:
        """The scalar loss of a whole batch, and its metrics."""
        batch, totals = self.prepare(batch, key)
        loss, metrics, coupled = self.partial_loss(params, batch, totals)
        if coupled is not None:
            coupled_loss, more = self.coupled_loss(coupled)
            loss, metrics = loss + coupled_loss, metrics | more
        return loss, {"loss": loss, **metrics}

    def abstract_parameters(self) -> tuple[Any, Any]:
        """Shapes and dtypes of the parameters, and a tree of the same form with tuples of logical axes."""
        return coca.abstract_parameters(self.model)


def images_struct(model: coca.Coca, rows: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a batch of images, in the form that the model takes."""
    one = jax.eval_shape(lambda: coca.example_images(model))
    return jax.ShapeDtypeStruct((rows, *one.shape[1:]), one.dtype)


def begins_with(name: str, *beginnings: str) -> bool:
    """Whether whole parts of a name, up to a slash or its end, equal one of `beginnings`; "" fits every name."""
    return any(not beginning or f"{name}/".startswith(f"{beginning}/") for beginning in beginnings)


def labels_of(objective: Objective, params: Any) -> dict[str, str]:
    """Each parameter's label, by its name; a CocaError if one has none, or one that is neither `FROZEN` nor a group."""
    known, labels = (FROZEN, *objective.groups), {}
    for name in by_name(params):
        fitting = [label for part, label in objective.labels.items() if begins_with(name, part)]
        if not fitting or fitting[0] not in known:
            problem = f"the label {fitting[0]!r}, which is no group" if fitting else "no label"
            where = f"in the labels of {type(objective).__name__}"
            raise CocaError(f"the parameter {name} has {problem}: give it one of {', '.join(known)} {where}")
        labels[name] = fitting[0]
    return labels


def split(objective: Objective, params: Any) -> tuple[Any, Any]:
    """The trained and the frozen ones of a tree of parameters (or of what belongs to them), as two nested dicts."""
    leaves, labels = by_name(params), labels_of(objective, params)
    trained = {name: leaf for name, leaf in leaves.items() if labels[name] != FROZEN}
    return from_names(trained), from_names({name: leaf for name, leaf in leaves.items() if name not in trained})


def merge(trained: Any, frozen: Any) -> Any:
    """The inverse of `split`; where both have a parameter, the trained one's value counts."""
    return from_names(by_name(frozen) | by_name(trained))
