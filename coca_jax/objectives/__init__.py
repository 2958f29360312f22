"""Objectives: batch, loss, model and trained parameters of a run. `build` makes the one that a config names.

An objective is a file here, its config dataclass, and its line in `build`.
"""

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.objectives.base import Objective
from coca_jax.objectives.captioning import Captioning
from coca_jax.objectives.classification import Classification
from coca_jax.objectives.entailment import Statements
from coca_jax.objectives.pretraining import Pretraining
from coca_jax.objectives.vqa import Vqa


def build(config: Config, pad_id: int = 0) -> Objective:
    """The objective that a config names, for a vocabulary with this pad."""
    match config.objective.name:
        case "pretraining":
            return Pretraining(config, pad_id)
        case "classification":
            return Classification(config, pad_id)
        case "entailment" | "pairs":
            return Statements(config, pad_id)
        case "vqa":
            return Vqa(config, pad_id)
        case "captioning":
            return Captioning(config, pad_id)
        case name:
            raise CocaError(f"objective.name = {name}: there is no such objective")
