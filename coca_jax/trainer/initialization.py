"""A run's state at step 0: fresh, or with the parameters of another run (the paper's stage at 576 pixels)."""

import logging
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import resize_positions
from coca_jax.trainer import checkpoint
from coca_jax.trainer.state import StatePlan, TrainState

_log = logging.getLogger(__name__)

_POSITIONS = "image_encoder/positions"


def initial_state(config: Config, plan: StatePlan, mesh: jax.sharding.Mesh) -> TrainState:
    """Fresh state; where `train.init_from` names a checkpoint, with its parameters (their average where it keeps one).

    The optimiser and the step always start anew. All processes call this together.

    Raises:
      CocaError: there is no checkpoint there, or it belongs to a model with other parameters; but position embeddings
        of images may be of another size, and are resized.
    """
    if not config.train.init_from:
        return plan.init(config.train.seed)
    restored = checkpoint.load(config.train.init_from, mesh)
    params = fitted(restored.params, plan.abstract.params, f"train.init_from = {config.train.init_from}")
    _log.info("starts from the parameters of %s at step %d", config.train.init_from, restored.step)
    state = plan.init(config.train.seed)
    # A copy: the step gives the memory of both back.
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state.replace(params=params, average=average)


def fitted(params: Any, wanted: Any, where: str) -> Any:
    """`params` for a model whose parameters are `wanted`: the same, with position embeddings resized where they differ.

    Args:
      params: a tree of arrays.
      wanted: a tree of ShapeDtypeStructs with shardings.
      where: what errors call the origin of `params`.

    Raises:
      CocaError: a parameter is missing, superfluous, or of another shape; it is named.
    """
    given, needed = _by_name(params), _by_name(wanted)
    for name in needed:
        if name not in given:
            raise CocaError(f"{where} has no parameter {name}: give this run the model that was trained there")
    for name in given:
        if name not in needed:
            raise CocaError(f"{where} has the parameter {name}, for which this model has no place: change config.model")
    result = {name: _fit(name, given[name], target, where) for name, target in needed.items()}
    return jax.tree.unflatten(jax.tree.structure(wanted), result.values())


def _fit(name: str, value: jax.Array, target: jax.ShapeDtypeStruct, where: str) -> jax.Array:
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


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
