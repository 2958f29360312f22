"""Whether an image entails a text (SNLI-VE), and whether a text is true of a pair of images (NLVR2); paper §4.2.3."""

from typing import Any

from jax import Array

from coca_jax.models.adapted import TextImageClassifier
from coca_jax.objectives.adaptation import CONTRASTIVE_PARAMETERS, TEXT_BRANCHES, Adaptation
from coca_jax.objectives.base import Batch, Metrics


class Entailment(Adaptation):
    """Cross-entropy of the classes of an image with its text, by the decoder's outputs for the text."""

    unused_parameters: tuple[str, ...] = (*CONTRASTIVE_PARAMETERS, "softmax")

    def build_model(self, images_per_example: int, classes: int) -> TextImageClassifier:
        return TextImageClassifier(self._config.model, TEXT_BRANCHES, images_per_example, classes)

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        valid_BL = batch["text"] != self.pad_id
        output = self.model.apply({"params": params}, self.tokens(params, batch), batch["text"], valid_BL, valid_BL)
        return *self.classifier_sums(output.logits_BC, batch), None


class Pairs(Entailment):
    """The same of two images with one text: each image is read with the text, and the outputs are concatenated."""
