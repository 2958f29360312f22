"""Objectives: what the loop minimises. A loss function takes (params, batch, key) and returns (loss, metrics)."""

from collections.abc import Callable
from typing import Any

import jax

from coca_jax import losses
from coca_jax.config import LossConfig
from coca_jax.models.coca import Coca

LossFunction = Callable[[Any, dict[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def pretraining(model: Coca, config: LossConfig, pad_id: int) -> LossFunction:
    """The paper's Eq. 4: weighted contrastive and captioning loss of one forward pass; and the optional losses.

    The batch holds `image` (what the model's `encode_image` takes) and `text`, int32 [B, L].
    """

    def loss(params: Any, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        ids_BL = batch["text"]
        valid_BL = ids_BL != pad_id
        output = model.apply({"params": params}, batch["image"], ids_BL, valid_BL)
        labels_BL, mask_BL = losses.next_tokens(ids_BL, valid_BL)
        total, metrics = 0.0, {}
        if config.contrastive_weight:
            value, accuracy = losses.contrastive_loss(
                output.image_embedding_BE, output.text_embedding_BE, output.temperature
            )
            total += config.contrastive_weight * value
            metrics |= {
                "contrastive_loss": value,
                "contrastive_accuracy": accuracy,
                "temperature": output.temperature,
            }
        if config.captioning_weight:
            counted_BL = losses.continuation_mask(mask_BL, key) if config.prefix_captioning else mask_BL
            value, accuracy = losses.captioning_loss(
                output.hidden_BLD, output.softmax.kernel_DV, output.softmax.bias_V, labels_BL, counted_BL
            )
            total += config.captioning_weight * value
            metrics |= {"captioning_loss": value, "captioning_accuracy": accuracy}
        if config.unimodal_language_model_weight:
            value, _ = losses.captioning_loss(
                output.unimodal_hidden_BLD, output.softmax.kernel_DV, output.softmax.bias_V, labels_BL, mask_BL
            )
            total += config.unimodal_language_model_weight * value
            metrics |= {"unimodal_language_model_loss": value}
        return total, {"loss": total, **metrics}

    return loss
