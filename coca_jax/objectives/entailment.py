"""Whether an image entails a text (SNLI-VE), and whether a text is true of a pair of images (NLVR2); paper §4.2.3."""

import abc
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
        frozen = not config.objective.head.encoder_learning_rate  # a loss of frozen parameters teaches nothing
        self.generative_weight = 0.0 if frozen else self.weight_of_generation(config)
        self.generates = self.generates or bool(self.generative_weight)
        self.unused_parameters = CONTRASTIVE_PARAMETERS + (() if self.generates else ("softmax",))
        super().__init__(config, pad_id)
        if self.generates and not self.generative_weight:  # or weight decay would wear it away
            self.labels = {"softmax": FROZEN, **self.labels}

    @abc.abstractmethod
    def weight_of_generation(self, config: Config) -> float:
        """The weight of the captioning loss, if the decoder learns."""

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
        """The weighted captioning loss of the rows, divided by the whole batch's number of labels; its mean over the images."""
        hidden_MLD, softmax = output.hidden_MLD, output.softmax
        if not self.generative_weight or hidden_MLD is None or softmax is None:
            return 0.0, {}
        images = hidden_MLD.shape[0] // batch["labels"].shape[0]
        labels_ML, mask_ML = (jnp.repeat(batch[name], images, axis=0) for name in ("labels", "mask"))
        loss_M, right_M = captioning.captioning_sums(hidden_MLD, softmax.kernel_DV, softmax.bias_V, labels_ML, mask_ML)
        loss, right = (jnp.sum(x) / (total * images) for x in (loss_M, right_M))
        metrics = {"captioning_loss": loss, "captioning_accuracy": right}
        return self.generative_weight * loss, metrics

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        """Cross-entropy of the classes, by the decoder's outputs for the text."""
        output = self.read(params, batch, batch["text"] != self.pad_id)
        loss, metrics = self.classifier_sums(output.logits_BC, batch)
        generative, more = self.generative_sums(output, batch, totals)
        return loss + generative, metrics | more, None


class Statements(TextImageAdaptation):
    """Classes of a text with an image, or with two: then each is read with the text, and the outputs are concatenated."""

    def weight_of_generation(self, config: Config) -> float:
        return config.objective.statements.generative_weight

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As `Adaptation.batch`; with a generative weight also `entailed`, bool [B], whose texts are learned."""
        arrays = super().batch()
        entailed = jax.ShapeDtypeStruct(arrays["label"].shape, jnp.bool_)
        return arrays | ({"entailed": entailed} if self.generative_weight else {})
