"""Whether an image entails a text (SNLI-VE), and whether a text is true of a pair of images (NLVR2); paper §4.2.3."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from coca_jax.config import Config
from coca_jax.models.adapted import AdaptedOutput, TextImageClassifier
from coca_jax.objectives.adaptation import CONTRASTIVE_PARAMETERS, TEXT_BRANCHES, Adaptation
from coca_jax.objectives.base import FROZEN, Batch, Metrics
from coca_jax.objectives.losses import captioning


class TextImageAdaptation(Adaptation):
    """Base of the objectives that read a text with the images; with a generative weight also the text's captioning loss.

    Without it the model has a softmax only if it `generates`, and then a frozen one.
    """

    generates = False  # whether the model writes texts even if it is not trained to

    def __init__(self, config: Config, pad_id: int = 0):
        self.generative_weight = self.weight_of_generation(config)
        self.generates = self.generates or bool(self.generative_weight)
        self.unused_parameters = CONTRASTIVE_PARAMETERS + (() if self.generates else ("softmax",))
        super().__init__(config, pad_id)
        if self.generates and not self.generative_weight:  # or weight decay would wear it away
            self.labels = {"softmax": FROZEN, **self.labels}

    def weight_of_generation(self, config: Config) -> float:
        """The weight of the captioning loss."""
        del config
        return 0.0

    def build_model(self, images_per_example: int, classes: int) -> TextImageClassifier:
        parts = (TEXT_BRANCHES, images_per_example, classes)
        return TextImageClassifier(self._config.model, *parts, generates=self.generates)

    def prepare(self, batch: Batch, key: Array) -> tuple[Batch, Any]:
        """The batch with the labels and mask [B, L] of the captioning loss, and the number of labels, if it has a weight."""
        if not self.generative_weight:
            return super().prepare(batch, key)
        labels_BL, mask_BL = captioning.next_tokens(batch["text"], batch["text"] != self.pad_id)
        if "entailed" in batch:
            mask_BL &= batch["entailed"][:, None]
        return batch | {"labels": labels_BL, "mask": mask_BL}, jnp.maximum(jnp.sum(mask_BL), 1).astype(jnp.float32)

    def read(self, params: Any, batch: Batch, pooled_BL: Array) -> AdaptedOutput:
        """The model's output, of which the head reads these positions of the text."""
        text_BL = batch["text"]
        inputs = (self.tokens(params, batch), text_BL, text_BL != self.pad_id, pooled_BL)
        return self.model.apply({"params": params}, *inputs)

    def generative_sums(self, output: AdaptedOutput, batch: Batch, total: Array) -> tuple[Array | float, Metrics]:
        """The weighted captioning loss of the rows, divided by the whole batch's number of labels."""
        hidden_BLD, softmax = output.hidden_BLD, output.softmax
        if not self.generative_weight or hidden_BLD is None or softmax is None:
            return 0.0, {}
        sums = (hidden_BLD, softmax.kernel_DV, softmax.bias_V, batch["labels"], batch["mask"])
        loss_B, right_B = captioning.captioning_sums(*sums)
        loss = jnp.sum(loss_B) / total
        metrics = {"captioning_loss": loss, "captioning_accuracy": jnp.sum(right_B) / total}
        return self.generative_weight * loss, metrics

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        """Cross-entropy of the classes, by the decoder's outputs for the text."""
        output = self.read(params, batch, batch["text"] != self.pad_id)
        loss, metrics = self.classifier_sums(output.logits_BC, batch)
        generative, more = self.generative_sums(output, batch, totals)
        return loss + generative, metrics | more, None


class Pairs(TextImageAdaptation):
    """Classes of a text with two images: each image is read with the text, and the outputs are concatenated."""


class Entailment(TextImageAdaptation):
    """Classes of a text with an image."""

    def weight_of_generation(self, config: Config) -> float:
        return config.objective.entailment.generative_weight

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As `Adaptation.batch`; with a generative weight also `entailed`, bool [B], whose texts are learned."""
        arrays = super().batch()
        entailed = jax.ShapeDtypeStruct(arrays["label"].shape, jnp.bool_)
        return arrays | ({"entailed": entailed} if self.generative_weight else {})
