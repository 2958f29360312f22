"""Objectives: what the loop minimises, and its exact gradient from a whole batch or from parts of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.config import Config, PretrainingConfig
from coca_jax.distributed.sharding import Axis, constrain, constrain_tree
from coca_jax.models.coca import Branches, Coca, CocaOutput, abstract_parameters
from coca_jax.objectives import losses

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
GradientFunction = Callable[[Any, Batch, jax.Array], tuple[Any, Metrics]]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The paper's Eq. 4: weighted contrastive and captioning loss of one forward pass; and the optional losses.

    A batch holds `image` (what the model's `encode_image` takes) and `text`, int32 [B, L]; and where there are `sources`
    `source`, int32 [B], for the captioning loss of each of them.
    """

    model: Coca
    config: PretrainingConfig
    pad_id: int
    sources: tuple[str, ...] = ()

    def loss(self, params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        """The scalar loss of a batch, and its metrics."""
        batch = self._with_masks(batch, key)
        output = self._forward(params, batch)
        total, metrics = self._language_losses(output, batch, self._label_counts(batch))
        if self.config.contrastive_weight:
            contrastive, more = self._contrastive_loss(
                (output.image_embedding_BE, output.text_embedding_BE, output.temperature)
            )
            total, metrics = total + contrastive, metrics | more
        return total, {"loss": total, **metrics}

    def gradients(self, microbatches: int = 1) -> GradientFunction:
        """A function (params, batch, key) -> (gradients, metrics) of the whole batch's loss.

        With several microbatches the batch is worked through in parts; the gradient is the same, for both losses. First
        come the embeddings of all parts; then the contrastive loss over all of them, with its gradient with respect to
        them; then, part by part, the gradients of the captioning loss and of the embeddings weighted with that
        (GradCache, arXiv 2101.06983). Only the two embeddings of each pair are kept between the passes, and captioning
        divides by the whole batch's number of labels.
        """

        def whole(params: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
            (_, metrics), gradients = jax.value_and_grad(self.loss, has_aux=True)(params, batch, key)
            return gradients, metrics

        def accumulated(params: Any, batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
            batch = self._with_masks(batch, key)
            counts = self._label_counts(batch)
            parts = jax.tree.map(lambda x: _split(x, microbatches), batch)
            contrastive, metrics, cotangents = 0.0, {}, None
            if self.config.contrastive_weight:
                contrastive, metrics, cotangents = self._embedding_cotangents(params, parts)

            def part_loss(params: Any, part: Batch, cotangents: Any) -> tuple[jax.Array, tuple[jax.Array, Metrics]]:
                output = self._forward(params, part)
                language, more = self._language_losses(output, part, counts)
                total = language
                if cotangents is not None:
                    embedded = (output.image_embedding_BE, output.text_embedding_BE, output.temperature)
                    total += sum(jnp.sum(x * cotangent) for x, cotangent in zip(embedded, cotangents, strict=True))
                return total, (language, more)

            def add(sums: Any, xs: Any) -> tuple[Any, None]:
                gradients, sums_of_losses = jax.tree.map(jnp.add, sums, part_gradients(params, *xs))
                # The sum lives as long as the loop: laid out as the parameters, or it would lie whole on every device.
                return (constrain_tree(gradients, parameter_axes), sums_of_losses), None

            _, parameter_axes = abstract_parameters(self.model)

            def part_gradients(*args):
                return _swap(jax.value_and_grad(part_loss, has_aux=True)(*args))

            first = jax.tree.map(lambda x: x[0], (parts, cotangents))
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part_gradients, params, *first))
            (gradients, (language, more)), _ = jax.lax.scan(add, zeros, (parts, cotangents))
            return gradients, {"loss": contrastive + language, **metrics, **more}

        return whole if microbatches == 1 else accumulated

    def _embedding_cotangents(self, params: Any, parts: Batch) -> tuple[jax.Array, Metrics, Any]:
        """The contrastive loss over all parts, and its gradient with respect to each part's embeddings [K, b, E] and to
        the temperature, of which each part gets its share [K]."""

        def embed(part: Batch) -> tuple[jax.Array, jax.Array]:
            variables = {"params": params}
            return (
                self.model.apply(variables, part["image"], method="embed_images"),
                self.model.apply(variables, part["text"], part["valid"], method="embed_texts"),
            )

        images_KBE, texts_KBE = jax.lax.map(embed, parts)
        temperature = self.model.apply({"params": params}, method="bounded_temperature")
        embedded = (_join(images_KBE), _join(texts_KBE), temperature)
        (loss, metrics), (images, texts, slope) = jax.value_and_grad(self._contrastive_loss, has_aux=True)(embedded)
        count = images_KBE.shape[0]
        return loss, metrics, (_split(images, count), _split(texts, count), jnp.full(count, slope / count))

    def _with_masks(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with what is random or reaches over neighbouring positions settled, so that it can be split."""
        valid_BL = batch["text"] != self.pad_id
        labels_BL, mask_BL = losses.next_tokens(batch["text"], valid_BL)
        counted_BL = losses.continuation_mask(mask_BL, key) if self.config.prefix_captioning else mask_BL
        return {**batch, "valid": valid_BL, "labels": labels_BL, "mask": mask_BL, "counted": counted_BL}

    def _label_counts(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How many labels the captioning loss counts, how many there are, and how many it counts of each source [S]."""
        counted_B = jnp.sum(batch["counted"], axis=1)
        return jnp.sum(counted_B), jnp.sum(batch["mask"]), self._by_source(counted_B, batch)

    def _by_source(self, x_B: jax.Array, batch: Batch) -> jax.Array:
        """The sums of the rows of each source [S], float32."""
        if not self.sources:
            return jnp.zeros(0)
        return jax.nn.one_hot(batch["source"], len(self.sources), axis=0) @ x_B.astype(jnp.float32)

    def _forward(self, params: Any, batch: Batch) -> CocaOutput:
        return self.model.apply({"params": params}, batch["image"], batch["text"], batch["valid"])

    def _contrastive_loss(self, embedded: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, Metrics]:
        loss, accuracy = losses.contrastive_loss(*embedded)
        metrics = {"contrastive_loss": loss, "contrastive_accuracy": accuracy, "temperature": embedded[2]}
        return self.config.contrastive_weight * loss, metrics

    def _language_losses(
        self, output: CocaOutput, batch: Batch, counts: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, Metrics]:
        total, metrics = jnp.zeros(()), {}

        def sums(hidden_BLD, mask_BL):
            return losses.captioning_sums(
                hidden_BLD, output.softmax.kernel_DV, output.softmax.bias_V, batch["labels"], mask_BL
            )

        total_counted, total_labels, counted_S = jax.tree.map(lambda x: jnp.maximum(x, 1).astype(jnp.float32), counts)
        if self.config.captioning_weight:
            loss_B, right_B = sums(output.hidden_BLD, batch["counted"])
            loss = jnp.sum(loss_B) / total_counted
            total += self.config.captioning_weight * loss
            metrics |= {"captioning_loss": loss, "captioning_accuracy": jnp.sum(right_B) / total_counted}
            own_S = self._by_source(jax.lax.stop_gradient(loss_B), batch) / counted_S
            metrics |= {f"captioning_loss/{name}": own_S[number] for number, name in enumerate(self.sources)}
        if self.config.unimodal_language_model_weight:
            loss_B, _ = sums(output.unimodal_hidden_BLD, batch["mask"])
            loss = jnp.sum(loss_B) / total_labels
            total += self.config.unimodal_language_model_weight * loss
            metrics |= {"unimodal_language_model_loss": loss}
        return total, metrics


def branches(config: Config) -> Branches:
    """The parts of the model that losses of a weight above 0 need."""
    loss = config.objective.pretraining
    return Branches(
        contrastive=bool(loss.contrastive_weight),
        captioning=bool(loss.captioning_weight),
        unimodal_language_model=bool(loss.unimodal_language_model_weight),
        initial_temperature=loss.initial_temperature,
    )


def sources(config: Config) -> tuple[str, ...]:
    """The sources whose captioning losses are told apart: those of a mixture, where captions are learned."""
    names = tuple(config.data.sources)
    return names if len(names) > 1 and config.objective.pretraining.captioning_weight else ()


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B, …] to [K, B / K, …]. Part k takes every K-th row, so that each device keeps the rows that it has."""
    x = jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)
    return constrain(x, Axis.MICROBATCHES, Axis.BATCH, *(Axis.LENGTH,) * (x.ndim - 2))


def _join(x: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])
    return constrain(x, Axis.BATCH, *(Axis.LENGTH,) * (x.ndim - 1))


def _swap(value_and_gradients: tuple[tuple[Any, Any], Any]) -> tuple[Any, Any]:
    (_, auxiliary), gradients = value_and_gradients
    return gradients, auxiliary
