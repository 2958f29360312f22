"""A run's state at step 0: fresh, or with the parameters of another run."""

import logging
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import resize_positions
from coca_jax.objectives.base import Objective, begins_with, by_name, from_names, split
from coca_jax.trainer import checkpoint
from coca_jax.trainer.state import StatePlan, TrainState

_log = logging.getLogger(__name__)

_POSITIONS = "image_encoder/positions"


def initial_state(config: Config, plan: StatePlan, mesh: jax.sharding.Mesh) -> TrainState:
    """Fresh state; if `train.init_from` names a checkpoint, with its parameters (their average if it has one).

    The optimiser and the step always start anew. All processes call this together.

    Raises:
      CocaError: there is no checkpoint there, or its parameters are not those of this run's model; but position
        embeddings of images may be of another size, and are resized, and the objective may name new parameters.
    """
    state = plan.init(config.train.seed)
    if not config.train.init_from:
        return state
    restored = checkpoint.load(config.train.init_from, mesh)
    params = fitted(plan.objective, restored.params, state.params, f"train.init_from = {config.train.init_from}")
    _log.info("starts from the parameters of %s at step %d", config.train.init_from, restored.step)
    # A copy: the step gives the memory of both back.
    average = None if state.average is None else jax.tree.map(jnp.copy, split(plan.objective, params)[0])
    return TrainState(state.step, params, average, state.opt_state)


def fitted(objective: Objective, given: Any, fresh: Any, where: str) -> Any:
    """The given parameters for the objective's model; position embeddings are resized where they differ.

    Args:
      given, fresh: trees of arrays; a parameter that `given` lacks and that may be new is taken from `fresh`.
      where: the name of the origin of `given` in errors.

    Raises:
      CocaError: a parameter is missing, superfluous, or of another shape; it is named.
    """
    arrays, needed = by_name(given), by_name(fresh)
    result, new = {}, []
    for name, target in needed.items():
        if name in arrays:
            result[name] = _fit(name, arrays[name], target, where)
        elif any(begins_with(name, part) for part in objective.new_parameters):
            result[name] = target
            new.append(name)
        else:
            raise CocaError(f"{where} has no parameter {name}: give this run the model that was trained there")
    for name in arrays:
        if name not in needed and not any(begins_with(name, part) for part in objective.unused_parameters):
            raise CocaError(f"{where} has the parameter {name}, for which this model has no place: change config.model")
    if new:
        _log.info("%d new parameters start at random: %s", len(new), ", ".join(new))
    return from_names(result)


def _fit(name: str, value: jax.Array, target: jax.Array, where: str) -> jax.Array:
    if value.shape == target.shape:
        return value
    if name != _POSITIONS or value.shape[1:] != target.shape[1:]:
        raise CocaError(
            f"the parameter {name} has the shape {value.shape} in {where} and {target.shape} in this model: "
            f"only model.image.size may differ"
        )
    _log.info("resizes %s from %d to %d tokens", name, value.shape[0], target.shape[0])
    resize = jax.jit(resize_positions, static_argnums=1, out_shardings=target.sharding)
    return resize(value, target.shape[0])
