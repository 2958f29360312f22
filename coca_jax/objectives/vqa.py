"""Visual question answering: a classifier of answers, trained together with generating question and answer (paper §4.2.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from coca_jax.config import Config
from coca_jax.objectives.base import Batch, Metrics
from coca_jax.objectives.entailment import TextImageAdaptation


class Vqa(TextImageAdaptation):
    """The classifier's loss with soft targets, and the captioning loss of the question followed by its answer.

        loss = λ_classifier Σ_bc -targets_bc log softmax(logits_b)[c] / Σ_bc targets_bc + λ_generative L_cap

    One pass of the decoder serves both: it is causal, so its outputs for the question, which the head reads, know nothing
    of the answer after it.
    """

    generates = True

    def weight_of_generation(self, config: Config) -> float:
        return config.objective.vqa.generative_weight

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """`image`; `text`, int32 [B, L], questions with answers; `question`, int32 [B], how many of its tokens (with BOS)
        are the question's; `targets`, float32 [B, C], the answers' scores in 0..1."""
        arrays = super().batch()
        rows = arrays.pop("label").shape[0]
        targets = jax.ShapeDtypeStruct((rows, self.settings.classes), jnp.float32)
        return arrays | {"question": jax.ShapeDtypeStruct((rows,), jnp.int32), "targets": targets}

    def prepare(self, batch: Batch, key: Array) -> tuple[Batch, Any]:
        """As `TextImageAdaptation.prepare`; and the sum of the targets beside the number of labels."""
        batch, labels = super().prepare(batch, key)
        return batch, (jnp.maximum(jnp.sum(batch["targets"]), 1e-6), labels)

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        asked_BL = jnp.arange(batch["text"].shape[1])[None] < batch["question"][:, None]
        output = self.read(params, batch, asked_BL)
        total_targets, total_labels = totals
        loss = -jnp.sum(batch["targets"] * jax.nn.log_softmax(output.logits_BC)) / total_targets
        chosen_B = jnp.argmax(output.logits_BC, axis=1)
        score_B = jnp.take_along_axis(batch["targets"], chosen_B[:, None], axis=1)
        metrics = {"classification_loss": loss, "vqa_score": jnp.sum(score_B) / self._config.train.batch_size}
        generative, more = self.generative_sums(output, batch, total_labels)
        return self._config.objective.vqa.classifier_weight * loss + generative, metrics | more, None
