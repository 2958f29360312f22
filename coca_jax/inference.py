"""A restored model with its vocabulary: embed, classify, caption, in batches of any size.

    coca = coca_jax.load("runs/quickstart")
    coca.caption(["a.png", "b.png"])
    coca.classify(["a.png"], labels=["cat", "dog"], templates=["a photo of a {}"])
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from coca_jax import generation
from coca_jax.config import Config
from coca_jax.data.images import load_image
from coca_jax.data.vocabulary import Vocabulary
from coca_jax.errors import CocaError
from coca_jax.models import coca as models
from coca_jax.trainer import checkpoint

_IMAGES_AT_ONCE = 4_096  # decoded pictures held in memory while a long list of paths is worked through


class Coca:
    """A CoCa for use.

    Images may be a list of PIL images, arrays (uint8, or float in 0..1) and paths, one array [H, W, 3] or [N, H, W, 3], or
    precomputed image tokens [N, tokens, width].

    Attributes:
      config: the run's configuration.
      vocabulary: its vocabulary.
      step: training steps taken.
      can_embed, can_caption: whether the model was trained with the contrastive and the captioning loss.
    """

    def __init__(self, config: Config, params: Any, vocabulary: Vocabulary, step: int):
        self.config, self.vocabulary, self.step = config, vocabulary, step
        self._params = params
        self._model = models.build(config)
        self._batch_size = config.evaluation.batch_size
        self.can_embed, self.can_caption = self._model.contrastive, self._model.captioning

    @property
    def parameter_count(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self._params))

    def embed_images(self, images: Any) -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E].

        Raises:
          CocaError: a picture cannot be read (it is named), or the model has no contrastive branch.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        return self._over_images(functools.partial(_embed_images, self._model), images)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E].

        Raises:
          CocaError: a text is longer than the model reads (it is named), or the model has no contrastive branch.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        if isinstance(texts, str):
            raise CocaError("embed_texts takes a list of texts: put the one text into a list")
        ids = self.vocabulary.encode(texts, self.config.model.text.length, "error")
        return self._batched(functools.partial(_embed_texts, self._model, self.vocabulary.pad_id), ids)

    def text_classifier(self, labels: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """One vector per class, float32 [C, E]: `text_classifier` of this model's `embed_texts`."""
        return text_classifier(self.embed_texts, labels, templates)

    def class_probabilities(
        self, images: Any, labels: Sequence[str], templates: Sequence[str] = ("{}",)
    ) -> np.ndarray:
        """Zero-shot probabilities, float32 [N, C]: softmax of the similarities over the trained temperature."""
        scores = self.embed_images(images) @ self.text_classifier(labels, templates).T
        scores /= float(self._model.apply({"params": self._params}, method="bounded_temperature"))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def classify(self, images: Any, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> list[str]:
        """The most likely label of each image, by the contrastive embeddings alone (paper §4.2.2)."""
        return [labels[i] for i in self.class_probabilities(images, labels, templates).argmax(axis=1)]

    def caption(self, images: Any) -> list[str]:
        """A caption for each image, by greedy decoding.

        Raises:
          CocaError: a picture cannot be read (it is named), or the model has no captioning branch.
        """
        self._require(self.can_caption, "captions", "captioning_weight")
        v = self.vocabulary
        ids = self._over_images(functools.partial(_caption, self._model, v.bos_id, v.eos_id, v.pad_id), images)
        return v.decode(ids)

    def _require(self, able: bool, what: str, weight: str) -> None:
        if not able:
            raise CocaError(f"this model gives no {what}: it was trained with config.loss.{weight} = 0")

    def _over_images(self, function: Callable, images: Any) -> np.ndarray:
        size = self.config.model.image.size
        if isinstance(images, np.ndarray):
            if images.shape[1:] == (models.token_count(self.config.model.image), self.config.model.width):
                return self._batched(function, images)  # precomputed image tokens
            if images.ndim == 3:
                images = images[None]
            if images.dtype == np.uint8 and images.shape[1:] == (size, size, 3):
                return self._batched(function, images)
        elif isinstance(images, (str, pathlib.Path, Image.Image)):
            raise CocaError("images are given as a list: put the one picture into a list")
        images = list(images)
        parts = [
            self._batched(function, np.stack([load_image(x, size) for x in images[i : i + _IMAGES_AT_ONCE]]))
            for i in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else self._batched(function, np.zeros((0, size, size, 3), np.uint8))

    def _batched(self, function: Callable, array: np.ndarray) -> np.ndarray:
        """`function` over batches; the last is padded to a power of two, so that few sizes are ever compiled."""
        if not len(array):
            shape = jax.eval_shape(function, self._params, jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype))
            return np.zeros((0, *shape.shape[1:]), shape.dtype)
        outputs = []
        for start in range(0, len(array), self._batch_size):
            part = array[start : start + self._batch_size]
            size = min(self._batch_size, 1 << (len(part) - 1).bit_length())
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            outputs.append(np.asarray(function(self._params, padded))[: len(part)])
        return np.concatenate(outputs)


def text_classifier(
    embed_texts: Callable[[Sequence[str]], np.ndarray], labels: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """One vector per class: the mean of the embeddings of its prompts, normalised again.

    Args:
      embed_texts: N texts to their L2-normalised embeddings, float32 [N, E].
      labels: the C classes' names.
      templates: prompts with a `{}` each, where the name goes.

    Returns:
      float32 [C, E], L2-normalised.

    Raises:
      CocaError: there is no template or no label, or a template has no `{}`.
    """
    if not labels or not templates:
        raise CocaError("zero-shot classification needs at least one label and one template")
    for template in templates:
        if "{}" not in template:
            raise CocaError(f"the zero-shot template {template!r} has no {{}}: write one where the class's name goes")
    # Not str.format: a template is data, and a brace in it is no replacement field. Template by template, so that
    # memory grows with the classes alone.
    total = sum(embed_texts([template.replace("{}", label) for label in labels]) for template in templates)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _embed_images(model: models.Coca, params: Any, images: jax.Array) -> jax.Array:
    return model.apply({"params": params}, images, method="embed_images")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed_texts(model: models.Coca, pad_id: int, params: Any, ids_BL: jax.Array) -> jax.Array:
    return model.apply({"params": params}, ids_BL, ids_BL != pad_id, method="embed_texts")


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _caption(model: models.Coca, bos_id: int, eos_id: int, pad_id: int, params: Any, images: jax.Array) -> jax.Array:
    return generation.greedy(model, params, images, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)


def load(path: str | pathlib.Path) -> Coca:
    """The model of a checkpoint, from nothing but its folder.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that.

    Raises:
      CocaError: there is no checkpoint.
    """
    restored = checkpoint.load(path)
    vocabulary = Vocabulary.from_bytes(restored.record.vocabulary)
    return Coca(restored.record.config, restored.params, vocabulary, restored.step)
