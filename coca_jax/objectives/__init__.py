"""Objectives: batch, loss, model and trained parameters of a run. `build` makes the one that a config names.

An objective is a file here, its config dataclass, and its line in `build`.
"""

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.objectives.base import Objective
from coca_jax.objectives.pretraining import Pretraining


def build(config: Config, pad_id: int = 0) -> Objective:
    """The objective that a config names, for a vocabulary with this pad."""
    match config.objective.name:
        case "pretraining":
            return Pretraining(config, pad_id)
        case name:
            raise CocaError(f"objective.name = {name}: there is no such objective")
