"""Pretrained models with a head: the parameters of `Coca` that they need keep their names, and those of `head` are new."""

from typing import Any

import chex
import jax.numpy as jnp
from flax import struct
from jax import Array

from coca_jax.models.coca import Coca, example_images, example_texts
from coca_jax.models.heads import FramePositions, Head
from coca_jax.models.text_decoder import SoftmaxWeights


@struct.dataclass
class AdaptedOutput:
    """The outputs of a model with a head."""

    logits_BC: Array  # float32
    # Of the decoder, as in `CocaOutput`, for each of the M = B·P images; None if the model generates no text.
    hidden_MLD: Array | None = None
    softmax: SoftmaxWeights | None = None


class AdaptedCoca(Coca):
    """Base of the models with a head. `images` are pixels, or in their place the tokens that `encode` makes of them."""

    classes: int = 0

    def setup(self) -> None:
        super().setup()
        self.head = Head(self.config, self.classes)

    def encode(self, images: Array) -> Array:
        """The image encoder's tokens [B, P, N, D], from pixels [B, S, S, 3] or [B, P, S, S, 3], or stored tokens [B, N, D]."""
        if images.ndim == 3:
            chex.assert_equal(self.images_per_example, 0)
            return images[:, None].astype(self.config.dtype)
        many = images if self.images_per_example else images[:, None]
        chex.assert_axis_dimension(many, 1, max(1, self.images_per_example))
        tokens_MND = self.image_encoder(many.reshape(-1, *many.shape[2:]))
        return tokens_MND.reshape(*many.shape[:2], *tokens_MND.shape[1:])


class VisualClassifier(AdaptedCoca):
    """Image encoder and head; the head's query pools all patches of all frames (paper §3.3). The decoder is discarded."""

    frame_positions: bool = False

    def setup(self) -> None:
        super().setup()
        if self.frame_positions:
            self.head_frames = FramePositions(self.config)

    def __call__(self, tokens_BPND: Array) -> AdaptedOutput:  # type: ignore[override]  # tokens stand for the images
        """The logits of the tokens that `encode` gives."""
        if self.frame_positions:
            tokens_BPND = self.head_frames(tokens_BPND)
        batch, _, _, width = tokens_BPND.shape
        return AdaptedOutput(self.head(tokens_BPND.reshape(batch, 1, -1, width)))

    def initialize(self) -> Any:
        return self(self.encode(example_images(self)))


class TextImageClassifier(AdaptedCoca):
    """Coca's captioning branch, and a head that pools the decoder's outputs (VQA, SNLI-VE, NLVR2; paper §4.2.3)."""

    generates: bool = False  # whether it has the softmax, and so captions and answers in words

    @property
    def can_caption(self) -> bool:
        # Pairs are trained with each image alone: their texts need not be true of a single one, nor of both at once.
        return self.generates and not self.images_per_example

    def __call__(  # type: ignore[override]  # as above
        self, tokens_BPND: Array, ids_BL: Array, valid_BL: Array, pooled_BL: Array
    ) -> AdaptedOutput:
        """Args:
        tokens_BPND: as `encode` gives them.
        pooled_BL: bool, the positions of the text that the head reads. Of a question with its answer those of the question:
          the decoder is causal, so they know nothing of the answer.
        """
        batch, parts, count, width = tokens_BPND.shape
        text_BLD = self.unimodal(ids_BL, valid_BL).hidden_BLD
        pooled = self.poolers(tokens_BPND.reshape(-1, count, width))
        each_text, each_valid = (jnp.repeat(x, parts, axis=0) if parts > 1 else x for x in (text_BLD, valid_BL))
        hidden = self.multimodal(each_text, each_valid, pooled.tokens_BQD).hidden_BLD
        logits_BC = self.head(hidden.reshape(batch, parts, *hidden.shape[1:]), pooled_BL)
        return AdaptedOutput(logits_BC, hidden, self._softmax()) if self.generates else AdaptedOutput(logits_BC)

    def initialize(self) -> Any:
        ids_BL, valid_BL = example_texts(self)
        return self(self.encode(example_images(self)), ids_BL, valid_BL, valid_BL)
