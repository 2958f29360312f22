"""A run's state at step 0: fresh, or with the parameters of another run."""

import logging
from typing import Any

import jax

from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import resize_positions
from coca_jax.objectives.base import Objective, begins_with, by_name, from_names
from coca_jax.trainer import checkpoint
from coca_jax.trainer.state import TrainState, average_of
from coca_jax.trainer.train_step import TrainStep

_log = logging.getLogger(__name__)

_POSITIONS = "image_encoder/positions"


def initial_state(step: TrainStep) -> TrainState:
    """Fresh state; if `train.init_from` names a checkpoint, with its parameters (their average if it has one).

    The optimiser and the step always start anew. All processes call this together.

    Raises:
      CocaError: there is no checkpoint there, or its parameters are not those of this run's model; but position
        embeddings of images may be of another size, and are resized, and the objective may name new parameters.
    """
    state, source = step.init(), step.config.train.init_from
    if not source:
        return state
    restored = checkpoint.load(source, step.mesh)
    params = fitted(step.objective, restored.params, state.params, f"train.init_from = {source}")
    _log.info("starts from the parameters of %s at step %d", source, restored.step)
    average = None if state.average is None else average_of(step.objective, params)
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
    new = [name for name in needed if name not in arrays]
    for name in new:
        if not begins_with(name, *objective.new_parameters):
            raise CocaError(f"{where} has no parameter {name}: give this run the model that was trained there")
    for name in arrays:
        if name not in needed and not begins_with(name, *objective.unused_parameters):
            raise CocaError(f"{where} has the parameter {name}, for which this model has no place: change config.model")
    if new:
        parts = [part for part in objective.new_parameters if any(begins_with(name, part) for name in new)]
        _log.info("%d new parameters start at random: %s", len(new), ", ".join(parts))
    kept = {name: _fit(name, arrays[name], target, where) for name, target in needed.items() if name in arrays}
    return from_names(needed | kept)


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
