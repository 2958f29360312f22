"""The base of the objectives with a head: groups of parameters, the frozen encoder, the classifier's loss."""

import abc
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array

from coca_jax.config import Config
from coca_jax.errors import CocaError
from coca_jax.models.adapted import AdaptedCoca
from coca_jax.models.coca import Branches
from coca_jax.objectives.base import FROZEN, Batch, Group, Metrics, Objective, images_struct

_HEAD = ("head", "head_frames")


class Adaptation(Objective):
    """Base of the objectives with a head, which start from a pretrained model.

    The head has the optimiser's peak learning rate, all else `objective.head.encoder_learning_rate`, or is frozen if that
    is 0. The tokens of a frozen image encoder are computed by `encode`, a program of its own.
    """

    model: AdaptedCoca
    new_parameters = _HEAD

    def __init__(self, config: Config, pad_id: int = 0):
        """Raises CocaError if the number of classes is not known, as where no data is read."""
        self.settings = head = config.objective.head
        if not head.classes:
            raise CocaError("without its data a head's number of classes is not known: set objective.head.classes")
        self.pad_id, self._config = pad_id, config
        rate, decay = config.optimizer.peak_learning_rate, config.optimizer.weight_decay
        self.groups, self.labels = {"head": Group(rate, decay)}, dict.fromkeys(_HEAD, "head")
        frozen = not head.encoder_learning_rate
        if not frozen:
            self.groups["pretrained"] = Group(head.encoder_learning_rate, decay)
        if head.lock_image_encoder:
            self.labels["image_encoder"] = FROZEN
        self.labels[""] = FROZEN if frozen else "pretrained"
        self.encodes_first = (frozen or head.lock_image_encoder) and config.model.image.kind != "precomputed"
        self.model = self.build_model(config.images_per_example, head.classes)

    @abc.abstractmethod
    def build_model(self, images_per_example: int, classes: int) -> AdaptedCoca:
        """The model, with these fields of it."""

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """`image` (see `AdaptedCoca.encode`), `text`, int32 [B, L], and `label`, int32 [B]."""
        rows, struct = self._config.train.batch_size, jax.ShapeDtypeStruct
        return {
            "image": images_struct(self.model, rows),
            "text": struct((rows, self._config.model.text.length), jnp.int32),
            "label": struct((rows,), jnp.int32),
        }

    def encode(self, params: Any, images: Array) -> Array:
        """The image encoder's tokens [B, P, N, D]."""
        return self.model.apply({"params": params}, images, method="encode")

    def tokens(self, params: Any, batch: Batch) -> Array:
        """The batch's image tokens, encoded here unless they were before the step."""
        return batch["tokens"] if self.encodes_first else self.encode(params, batch["image"])

    def classifier_sums(self, logits_BC: Array, batch: Batch) -> tuple[Array, Metrics]:
        """The rows' sums of smoothed cross-entropies and of right answers, divided by the size of the whole batch.

        loss_b = -Σ_c ((1 - s) [c = label_b] + s / C) log softmax(logits_b)[c]
        """
        labels_BC = jax.nn.one_hot(batch["label"], logits_BC.shape[1])
        chex.assert_equal_shape([logits_BC, labels_BC])
        loss_B = optax.softmax_cross_entropy(logits_BC, optax.smooth_labels(labels_BC, self.settings.label_smoothing))
        loss = jnp.sum(loss_B) / self._config.train.batch_size
        right = jnp.sum(jnp.argmax(logits_BC, axis=1) == batch["label"]) / self._config.train.batch_size
        return loss, {"classification_loss": loss, "accuracy": right}


TEXT_BRANCHES = Branches(contrastive=False, captioning=True)
# What pretraining has and a model without embeddings has not.
CONTRASTIVE_PARAMETERS = ("poolers/contrastive", "unimodal/cls_embedding", "unimodal/norm", "temperature")
