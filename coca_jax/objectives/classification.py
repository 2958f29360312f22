"""Classification of images or clips by a new pooler and softmax over the image encoder's tokens (paper §3.3, Table 9)."""

from typing import Any

import jax
from jax import Array

from coca_jax.models.adapted import VisualClassifier
from coca_jax.models.coca import Branches
from coca_jax.objectives.adaptation import Adaptation
from coca_jax.objectives.base import Batch, Metrics


class Classification(Adaptation):
    """Cross-entropy of the classes; the text decoder is discarded."""

    unused_parameters = ("poolers", "unimodal", "multimodal", "softmax", "temperature")

    def build_model(self, images_per_example: int, classes: int) -> VisualClassifier:
        branches, ordered = Branches(contrastive=False, captioning=False), self.settings.frame_positions
        return VisualClassifier(self._config.model, branches, images_per_example, classes, frame_positions=ordered)

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """`image` (see `AdaptedCoca.encode`), and `label`, int32 [B]."""
        return {name: array for name, array in super().batch().items() if name != "text"}

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        output = self.model.apply({"params": params}, self.tokens(params, batch))
        return *self.classifier_sums(output.logits_BC, batch), None
