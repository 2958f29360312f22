"""Pretraining: the paper's weighted contrastive and captioning losses from one forward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from coca_jax.config import Config, PretrainingConfig
from coca_jax.models.coca import Branches, Coca
from coca_jax.objectives.base import Batch, Group, Metrics, Objective, images_struct
from coca_jax.objectives.losses import captioning, contrastive


class Pretraining(Objective):
    """The paper's Eq. 4, λ_con L_con + λ_cap L_cap, and two optional losses; a branch exists if its weight is not 0."""

    def __init__(self, config: Config, pad_id: int = 0):
        self.weights = weights = self.loss_weights(config)
        self.model = Coca(config.model, self.branches(), config.images_per_example)
        self.groups = {"all": Group(config.optimizer.peak_learning_rate, config.optimizer.weight_decay)}
        self.labels = {"": "all"}
        names = tuple(config.data.sources)
        # Those whose captioning losses are reported apart.
        self.sources = names if len(names) > 1 and weights.captioning_weight else ()
        self._config, self._pad_id = config, pad_id

    @staticmethod
    def loss_weights(config: Config) -> PretrainingConfig:
        return config.objective.pretraining

    def branches(self) -> Branches:
        weights = self.weights
        return Branches(
            contrastive=bool(weights.contrastive_weight),
            captioning=bool(weights.captioning_weight),
            unimodal_language_model=bool(weights.unimodal_language_model_weight),
            initial_temperature=weights.initial_temperature,
        )

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """`image` (see `Coca.encode_image`), `text`, int32 [B, L], and with `sources` each row's `source`, int32 [B]."""
        rows, length = self._config.train.batch_size, self._config.model.text.length
        arrays = {"image": images_struct(self.model, rows), "text": jax.ShapeDtypeStruct((rows, length), jnp.int32)}
        return arrays | ({"source": jax.ShapeDtypeStruct((rows,), jnp.int32)} if self.sources else {})

    def prepare(self, batch: Batch, key: Array) -> tuple[Batch, Any]:
        """The batch with its labels and masks [B, L], and how many labels the captioning loss counts, how many there
        are, and how many it counts of each source [S]."""
        valid_BL = batch["text"] != self._pad_id
        labels_BL, mask_BL = captioning.next_tokens(batch["text"], valid_BL)
        counted_BL = captioning.continuation_mask(mask_BL, key) if self.weights.prefix_captioning else mask_BL
        counted_B = jnp.sum(counted_BL, axis=1)
        totals = (jnp.sum(counted_B), jnp.sum(mask_BL), self._by_source(counted_B, batch))
        batch = {**batch, "valid": valid_BL, "labels": labels_BL, "mask": mask_BL, "counted": counted_BL}
        return batch, jax.tree.map(lambda x: jnp.maximum(x, 1).astype(jnp.float32), totals)

    def partial_loss(self, params: Any, batch: Batch, totals: Any) -> tuple[Array, Metrics, Any]:
        """The captioning losses, and the embeddings for `coupled_loss`."""
        output = self.model.apply({"params": params}, batch["image"], batch["text"], batch["valid"])
        coupled = None
        if self.weights.contrastive_weight:
            coupled = (output.image_embedding_BE, output.text_embedding_BE, output.temperature)
        total = jnp.zeros(())
        metrics: Metrics = {}
        total_counted, total_labels, counted_S = totals
        if self.weights.captioning_weight:
            loss_B, right_B = self._captioning_sums(output, output.hidden_BLD, batch, "counted")
            loss = jnp.sum(loss_B) / total_counted
            total += self.weights.captioning_weight * loss
            metrics |= {"captioning_loss": loss, "captioning_accuracy": jnp.sum(right_B) / total_counted}
            by_source_S = self._by_source(jax.lax.stop_gradient(loss_B), batch) / counted_S
            metrics |= {f"captioning_loss/{name}": by_source_S[number] for number, name in enumerate(self.sources)}
        if self.weights.unimodal_language_model_weight:
            loss_B, _ = self._captioning_sums(output, output.unimodal_hidden_BLD, batch, "mask")
            loss = jnp.sum(loss_B) / total_labels
            total += self.weights.unimodal_language_model_weight * loss
            metrics |= {"unimodal_language_model_loss": loss}
        return total, metrics, coupled

    def coupled(self, params: Any, batch: Batch) -> Any:
        """Image and text embeddings [B, E] and the temperature, without the decoder's multimodal half."""
        if not self.weights.contrastive_weight:
            return None
        variables = {"params": params}
        return (
            self.model.apply(variables, batch["image"], method="embed_images"),
            self.model.apply(variables, batch["text"], batch["valid"], method="embed_texts"),
            self.model.apply(variables, method="bounded_temperature"),
        )

    def coupled_loss(self, coupled: Any) -> tuple[Array, Metrics]:
        """The contrastive loss over the global batch."""
        loss, accuracy = contrastive.contrastive_loss(*coupled)
        metrics = {"contrastive_loss": loss, "contrastive_accuracy": accuracy, "temperature": coupled[2]}
        return self.weights.contrastive_weight * loss, metrics

    def _captioning_sums(self, output: Any, hidden_BLD: Array, batch: Batch, mask: str) -> Any:
        softmax = output.softmax
        return captioning.captioning_sums(hidden_BLD, softmax.kernel_DV, softmax.bias_V, batch["labels"], batch[mask])

    def _by_source(self, x_B: Array, batch: Batch) -> Array:
        """The sums over the rows of each source [S], float32."""
        if not self.sources:
            return jnp.zeros(0)
        return jax.nn.one_hot(batch["source"], len(self.sources), axis=0) @ x_B.astype(jnp.float32)
