"""Visual question answering: a classifier of answers, trained together with generating question and answer (paper §4.2.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from coca_jax.config import Config
from coca_jax.models.adapted import TextImageClassifier
from coca_jax.objectives.adaptation import CONTRASTIVE_PARAMETERS, TEXT_BRANCHES
from coca_jax.objectives.base import FROZEN, Batch, Metrics
from coca_jax.objectives.entailment import Entailment
from coca_jax.objectives.losses import captioning


class Vqa(Entailment):
    """The classifier's loss with soft targets, and the captioning loss of the question followed by its answer.

        loss = λ_classifier Σ_bc -targets_bc log softmax(logits_b)[c] / Σ_bc targets_bc + λ_generative L_cap

    One pass of the decoder serves both: it is causal, so its outputs for the question, which the head reads, know nothing
    of the answer after it.
    """

    unused_parameters = CONTRASTIVE_PARAMETERS

    def __init__(self, config: Config, pad_id: int = 0):
        super().__init__(config, pad_id)
        if not config.objective.vqa.generative_weight:  # or weight decay would wear it away
            self.labels = {"softmax": FROZEN, **self.labels}

    def build_model(self, images_per_example: int, classes: int) -> TextImageClassifier:
        return TextImageClassifier(self._config.model, TEXT_BRANCHES, images_per_example, classes, generates=True)

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """`image`; `text`, int32 [B, L], questions with answers; `question`, int32 [B], how many of its tokens (with BOS)
        are the question's; `targets`, float32 [B, C], the answers' scores in 0..1."""
        arrays = super().batch()
        rows = arrays.pop("label").shape[0]
        targets = jax.ShapeDtypeStruct((rows, self.settings.classes), jnp.float32)
        return arrays | {"question": jax.ShapeDtypeStruct((rows,), jnp.int32), "targets": targets}

    def prepare(self, batch: Batch, key: Array) -> tuple[Batch, Any]:
        """The batch with its labels and masks [B, L]; the sum of the targets, and the number of labels."""
        valid_BL = batch["text"] != self.pad_id
        labels_BL, mask_BL = captioning.next_tokens(batch["text"], valid_BL)
        totals = jnp.maximum(jnp.sum(batch["targets"]), 1e-6), jnp.maximum(jnp.sum(mask_BL), 1).astype(jnp.float32)
        return batch | {"labels": labels_BL, "mask": mask_BL}, totals

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        text_BL, weights = batch["text"], self._config.objective.vqa
        valid_BL = text_BL != self.pad_id
        asked_BL = jnp.arange(text_BL.shape[1])[None] < batch["question"][:, None]
        output = self.model.apply({"params": params}, self.tokens(params, batch), text_BL, valid_BL, asked_BL)
        total_targets, total_labels = totals
        loss = -jnp.sum(batch["targets"] * jax.nn.log_softmax(output.logits_BC)) / total_targets
        chosen_B = jnp.argmax(output.logits_BC, axis=1)
        score_B = jnp.take_along_axis(batch["targets"], chosen_B[:, None], axis=1)
        metrics = {"classification_loss": loss, "vqa_score": jnp.sum(score_B) / self._config.train.batch_size}
        total = weights.classifier_weight * loss
        if weights.generative_weight:
            softmax = output.softmax
            sums = (output.hidden_BLD, softmax.kernel_DV, softmax.bias_V, batch["labels"], batch["mask"])
            loss_B, right_B = captioning.captioning_sums(*sums)
            generative = jnp.sum(loss_B) / total_labels
            total += weights.generative_weight * generative
            metrics |= {"captioning_loss": generative, "captioning_accuracy": jnp.sum(right_B) / total_labels}
        return total, metrics, None
