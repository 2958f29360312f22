"""Captioning: finetuning on captions alone, or with a share of the contrastive loss (paper §4.2.3, Table 10)."""

from coca_jax.config import Config, PretrainingConfig
from coca_jax.models.coca import Branches
from coca_jax.objectives.adaptation import CONTRASTIVE_PARAMETERS
from coca_jax.objectives.base import FROZEN
from coca_jax.objectives.pretraining import Pretraining


class Captioning(Pretraining):
    """Pretraining's losses with other weights. The model keeps its embeddings, so that they can be measured afterwards;
    without a contrastive loss the parameters of the embeddings alone are frozen, or weight decay would wear them away."""

    def __init__(self, config: Config, pad_id: int = 0):
        super().__init__(config, pad_id)
        if not self.weights.contrastive_weight:
            self.labels = {**dict.fromkeys(CONTRASTIVE_PARAMETERS, FROZEN), **self.labels}

    @staticmethod
    def loss_weights(config: Config) -> PretrainingConfig:
        weights = config.objective.captioning
        return PretrainingConfig(weights.contrastive_weight, weights.captioning_weight)

    def branches(self) -> Branches:
        return Branches()
