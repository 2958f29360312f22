"""A restored model with its vocabulary: embed, classify, caption, in batches of any size.

    coca = coca_jax.load("runs/quickstart")
    coca.caption(["a.png", "b.png"], GenerationOptions(beams=6))  # coca_jax.generation
    coca.answer(["a.png"], ["what color is the car?"])
    coca.classify(["a.png"], labels=["cat", "dog"], templates=["a photo of a {}"])
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from coca_jax import generation, hosts, sharding
from coca_jax.config import Config, MeshConfig
from coca_jax.data.images import load_image
from coca_jax.data.vocabulary import Vocabulary
from coca_jax.errors import CocaError
from coca_jax.generation import GenerationOptions
from coca_jax.models import coca as models
from coca_jax.trainer import checkpoint

_IMAGES_AT_ONCE = 4_096  # decoded pictures held in memory while a long list of paths is worked through


class Coca:
    """A CoCa for use.

    Images may be a list of PIL images, arrays (uint8, or float in 0..1) and paths, one array [H, W, 3] or [N, H, W, 3], or
    precomputed image tokens [N, tokens, width].

    On a mesh (a training run's, or all devices) each batch is spread over the devices, and each process gets all of the
    results. Processes that share a mesh must ask the same of it, in the same order.

    Attributes:
      config: the run's configuration.
      vocabulary: its vocabulary.
      step: training steps taken.
      can_embed, can_caption: whether the model was trained with the contrastive and the captioning loss.
    """

    def __init__(
        self,
        config: Config,
        params: Any,
        vocabulary: Vocabulary,
        step: int,
        *,
        mesh: jax.sharding.Mesh | None = None,
        between_batches: Callable[[], None] = lambda: None,
    ):
        """Takes a model as it is.

        Args:
          config, params, vocabulary, step: of the run.
          mesh: on which the parameters lie; by default on one device.
          between_batches: called before each batch; what it raises ends the work.
        """
        self.config, self.vocabulary, self.step = config, vocabulary, step
        self._params, self._mesh, self._between_batches = params, mesh, between_batches
        self._model = models.build(config)
        # A batch divides over the mesh, the last one too.
        self._multiple = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        self._batch_size = -(-config.evaluation.batch_size // self._multiple) * self._multiple
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

    def caption(
        self,
        images: Any,
        options: GenerationOptions = GenerationOptions(),
        *,
        prompts: str | Sequence[str] = "",
        seed: int = 0,
    ) -> list[str]:
        """A caption for each image.

        Args:
          images: as said above.
          options: how to generate; greedily by default.
          prompts: what the captions begin with: one text for all images, or one for each.
          seed: for sampling. Draws belong to an image's place in the list, whatever the batch.

        Raises:
          CocaError: a picture cannot be read (it is named), a prompt is too long, there are more or fewer prompts than
            images, or the model has no captioning branch.
        """
        return self.vocabulary.decode(self._generate(images, options, prompts, seed)[1])

    def answer(
        self,
        images: Any,
        questions: str | Sequence[str],
        options: GenerationOptions = GenerationOptions(),
        *,
        seed: int = 0,
    ) -> list[str]:
        """What `caption` says after the question, one for all images or one for each; errors as there."""
        asked, ids = self._generate(images, options, questions, seed)
        given = np.pad(asked, ((0, 0), (0, ids.shape[1] - asked.shape[1])), constant_values=self.vocabulary.pad_id)
        return self.vocabulary.decode(np.where(given == self.vocabulary.pad_id, ids, self.vocabulary.pad_id))

    def _generate(
        self, images: Any, options: GenerationOptions, prompts: str | Sequence[str], seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The prompts' ids [N, P] and the texts' [N, L]."""
        self._require(self.can_caption, "captions", "captioning_weight")
        if not 0 <= seed < 2**32:
            raise CocaError(f"seed = {seed}: it must lie in [0, 2**32)")
        images, v = self._listed(images), self.vocabulary
        texts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        if len(texts) != len(images):
            raise CocaError(f"there are {len(texts)} prompts for {len(images)} images: give one for each, or for all")
        ids = v.encode(texts, self.config.model.text.length, "error")
        ids[ids == v.eos_id] = v.pad_id  # the text goes on
        longest = int((ids != v.pad_id).sum(axis=1).max(initial=1))
        ids = ids[:, : 1 << (longest - 1).bit_length()]  # so that few lengths are ever compiled
        draws = np.stack([np.full(len(ids), seed), np.arange(len(ids))], axis=1).astype(np.uint32)
        function = functools.partial(_generate, self._model, options, v.bos_id, v.eos_id, v.pad_id)
        return ids, self._over_images(function, images, ids, draws)

    def _require(self, able: bool, what: str, weight: str) -> None:
        if not able:
            raise CocaError(f"this model gives no {what}: it was trained with config.loss.{weight} = 0")

    def _listed(self, images: Any) -> np.ndarray | list:
        """What the model reads as it is, an array of pictures or of image tokens; or else a list of N pictures."""
        size = self.config.model.image.size
        if isinstance(images, np.ndarray):
            if images.shape[1:] == (models.token_count(self.config.model.image), self.config.model.width):
                return images
            if images.ndim == 3:
                images = images[None]
            if images.dtype == np.uint8 and images.shape[1:] == (size, size, 3):
                return images
        elif isinstance(images, (str, os.PathLike, Image.Image)):
            raise CocaError("images are given as a list: put the one picture into a list")
        return list(images)

    def _over_images(self, function: Callable, images: Any, *beside: np.ndarray) -> np.ndarray:
        """`function` of the parameters, of all images and of what lies beside them, [N, …] each."""
        size, images = self.config.model.image.size, self._listed(images)
        if isinstance(images, np.ndarray):
            return self._batched(function, images, *beside)
        parts = []
        for i in range(0, len(images), _IMAGES_AT_ONCE):
            now = slice(i, i + _IMAGES_AT_ONCE)
            pictures = np.stack([load_image(x, size) for x in images[now]])
            parts.append(self._batched(function, pictures, *[x[now] for x in beside]))
        nothing = np.zeros((0, size, size, 3), np.uint8)
        return np.concatenate(parts) if parts else self._batched(function, nothing, *beside)

    def _batched(self, function: Callable, *arrays: np.ndarray) -> np.ndarray:
        """`function` over batches; the last is padded, to a power of two, so that few sizes are ever compiled."""
        count = len(arrays[0])
        if not count:
            one = [jax.ShapeDtypeStruct((1, *array.shape[1:]), array.dtype) for array in arrays]
            shape = jax.eval_shape(function, self._params, *one)
            return np.zeros((0, *shape.shape[1:]), shape.dtype)
        outputs = []
        for start in range(0, count, self._batch_size):
            real = min(count - start, self._batch_size)
            parts = -(-real // self._multiple)
            size = min(self._batch_size, self._multiple << (parts - 1).bit_length())
            rows = start + np.minimum(np.arange(size), real - 1)  # the last row again and again
            self._between_batches()
            outputs.append(self._call(function, [array[rows] for array in arrays])[:real])
        return np.concatenate(outputs)

    def _call(self, function: Callable, batch: list[np.ndarray]) -> np.ndarray:
        if self._mesh is None:
            return np.asarray(function(self._params, *batch))
        with jax.set_mesh(self._mesh):
            placed, size = sharding.batch_sharding(self._mesh), len(batch[0])
            rows = hosts.local_rows(placed, size)
            spread = [hosts.global_batch(placed, size, array[rows]) for array in batch]
            return multihost_utils.process_allgather(function(self._params, *spread), tiled=True)


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


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _generate(
    model: models.Coca,
    options: GenerationOptions,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    params: Any,
    images: jax.Array,
    prompts_BP: jax.Array,
    draws_B2: jax.Array,
) -> jax.Array:
    special = dict(bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    keys_B = None
    if options.temperature:
        keys_B = jax.vmap(lambda draw: jax.random.fold_in(jax.random.key(draw[0]), draw[1]))(draws_B2)
    return generation.generate(model, params, images, options, **special, prompts_BP=prompts_BP, keys_B=keys_B)


def load(path: str | os.PathLike, *, all_devices: bool = False) -> Coca:
    """The model of a checkpoint, from nothing but its folder.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket (gs://…).
      all_devices: whether to spread the work, and a large model, over all devices (of all processes); by default it
        comes to the first.

    Raises:
      CocaError: there is no checkpoint.
    """
    mesh = None
    if all_devices and jax.device_count() > 1:
        mesh = sharding.make_mesh(MeshConfig(), checkpoint.load_record(path).config.model)
    restored = checkpoint.load(path, mesh)
    vocabulary = Vocabulary.from_bytes(restored.record.vocabulary)
    return Coca(restored.record.config, restored.params, vocabulary, restored.step, mesh=mesh)
