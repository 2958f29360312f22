"""A restored model with its vocabulary: embed, classify, caption, in batches of any size.

coca = coca_jax.load("runs/quickstart")
coca.caption(["a.png", "b.png"], GenerationOptions(beams=6))  # coca_jax.generation
coca.answer(["a.png"], ["what color is the car?"])
coca.classify(["a.png"], labels=["cat", "dog"], templates=["a photo of a {}"])
coca.index(["a.png", "b.png"]).search("a cat on a sofa", k=1)
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from coca_jax.config import Config, MeshConfig
from coca_jax.data.images.inputs import input_dtype, input_shape, load_input
from coca_jax.data.images.video import load_clip
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.distributed import sharding
from coca_jax.embedding_index.index import Index
from coca_jax.errors import CocaError
from coca_jax.generation import GenerationOptions
from coca_jax.inference import functions as predictions
from coca_jax.inference.batching import Batcher
from coca_jax.models import coca as models
from coca_jax.objectives import pretraining
from coca_jax.trainer import checkpoint
from coca_jax.trainer.fingerprint import model_digest

_IMAGES_AT_ONCE = 4_096  # decoded pictures held in memory while a long list of paths is worked through


class Coca:
    """A CoCa for use.

    Images may be a list of PIL images, arrays (uint8, or float in 0..1) and paths, one array [H, W, 3] or [N, H, W, 3],
    precomputed image tokens [N, tokens, width], or anything that is indexed like one of these arrays: then each process
    asks it for the rows that its devices hold, batch by batch.

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
        batch_size: int = 0,
    ):
        """Takes a model as it is.

        Args:
          config, params, vocabulary, step: of the run.
          mesh: on which the parameters lie; by default on one device.
          between_batches: called before each batch; what it raises ends the work.
          batch_size: by default that of the run's evaluations; it is rounded up to divide over the mesh.
        """
        self.config, self.vocabulary, self.step = config, vocabulary, step
        self._params = params
        self._model = models.build(config.model, pretraining.branches(config))
        self._batcher = Batcher(params, mesh, batch_size or config.evaluation.batch_size, between_batches)
        self.can_embed, self.can_caption = self._model.branches.contrastive, self._model.branches.captioning

    @property
    def batch_size(self) -> int:
        """Pictures or texts that the model is given at a time."""
        return self._batcher.size

    @property
    def parameter_count(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self._params))

    @functools.cached_property
    def temperature(self) -> float:
        """What similarities are divided by before a softmax makes probabilities of them, as it was trained."""
        return float(self._model.apply({"params": self._params}, method="bounded_temperature"))

    def embed_images(self, images: Any) -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E].

        Raises:
          CocaError: a picture cannot be read (it is named), or the model has no contrastive branch.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        return self._over_images(functools.partial(predictions.embed_images, self._model), images)

    def embed_videos(self, clips: Any, frames: int = 16) -> np.ndarray:
        """The normalised mean of each clip's frames' embeddings, uniformly sampled (paper, MSR-VTT): float32 [N, E].

        Args:
          clips: a list of paths, bytes of files, arrays [T, H, W, 3] and lists of pictures; or [N, T, H, W, 3] in an
            array, or in what is indexed like one.
          frames: how many of each clip to take.

        Raises:
          CocaError: a clip cannot be read (it is named), or the model has no contrastive branch.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        size, function = self.config.model.image.size, functools.partial(predictions.embed_videos, self._model)
        shape = getattr(clips, "shape", ())
        if len(shape) == 5 and shape[1] == frames and shape[2:] == (size, size, 3) and clips.dtype == np.uint8:
            return self._batcher(function, clips)
        parts, at_once = [], max(1, _IMAGES_AT_ONCE // frames)
        for i in range(0, max(1, len(clips)), at_once):
            loaded = [load_clip(clip, size, frames) for clip in clips[i : i + at_once]]
            parts.append(self._batcher(function, np.array(loaded, np.uint8).reshape(-1, frames, size, size, 3)))
        return np.concatenate(parts)

    def index(self, images: Iterable[Any], names: Iterable[str] | None = None) -> Index:
        """An index of pictures to search and to save; `images` may be any iterable, which is worked through in parts.

        Args:
          images: as said above.
          names: what results call them: by default a path's text, and for other pictures their place in the list.

        Raises:
          CocaError: a picture cannot be read (it is named), or there are more or fewer names than pictures.
        """
        return Index.of(self, images, names)

    def load_index(self, folder: str | os.PathLike) -> Index:
        """The index that was saved in a folder.

        Raises:
          CocaError: there is none, it is damaged, or another checkpoint made it.
        """
        return Index.load(self, folder)

    @functools.cached_property
    def digest(self) -> str:
        """16 hex digits that another model does not have: of parameters, their form and the vocabulary."""
        return model_digest(self.config.model, self._params, self.vocabulary.model_bytes)

    def embed_texts(self, texts: Sequence[str], long_text: str = "error") -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E]; with long_text = "truncate" what the model cannot read is cut off.

        Raises:
          CocaError: a text is longer than the model reads (it is named), or the model has no contrastive branch.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        if isinstance(texts, str):
            raise CocaError("embed_texts takes a list of texts: put the one text into a list")
        ids = self.vocabulary.encode(texts, self.config.model.text.length, long_text)
        return self._batcher(functools.partial(predictions.embed_texts, self._model, self.vocabulary.pad_id), ids)

    def text_classifier(self, labels: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """One vector per class, float32 [C, E]: `text_classifier` of this model's `embed_texts`."""
        return text_classifier(self.embed_texts, labels, templates)

    def class_probabilities(self, images: Any, labels: Sequence[str], templates: Sequence[str] = ("{}",)) -> np.ndarray:
        """Zero-shot probabilities, float32 [N, C]: softmax of the similarities over the trained temperature."""
        scores = self.embed_images(images) @ self.text_classifier(labels, templates).T
        scores /= self.temperature
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

    def caption_log_likelihoods(
        self, images: Any, texts: Sequence[str], *, per_token: bool = False, long_text: str = "error"
    ) -> np.ndarray:
        """log p(text | image) of each text for each image, float32 [N, C]: of all its tokens and EOS, or their mean.

        Raises:
          CocaError: a picture cannot be read, a text is too long (they are named), or the model has no captioning branch.
        """
        self._require(self.can_caption, "captions", "captioning_weight")
        ids = self.vocabulary.encode(texts, self.config.model.text.length, long_text)
        lengths = (ids != self.vocabulary.pad_id).sum(axis=1).astype(np.float32)
        longest = int(lengths.max(initial=1))
        ids = ids[:, : min(1 << (longest - 1).bit_length(), ids.shape[1])]
        function = functools.partial(predictions.log_likelihoods, self._model, self.vocabulary.pad_id, ids)
        return self._over_images(function, images, batcher=self._generation) / (lengths - 1 if per_token else 1)

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
        function = functools.partial(predictions.generate, self._model, options, v.bos_id, v.eos_id, v.pad_id)
        return ids, self._over_images(function, images, ids, draws, batcher=self._generation)

    @functools.cached_property
    def _generation(self) -> Batcher:
        """With the decoder's parameters laid out as generation reads them: once, not at each call."""
        return self._batcher.remade(functools.partial(predictions.generation_parameters, self.config.model))

    def _require(self, able: bool, what: str, weight: str) -> None:
        if not able:
            raise CocaError(f"this model gives no {what}: it was trained with objective.pretraining.{weight} = 0")

    def _listed(self, images: Any) -> Any:
        """What the model reads as it is, an array of pictures or of image tokens; or else a list of N pictures."""
        size = self.config.model.image.size
        if hasattr(images, "shape") and hasattr(images, "dtype"):
            if images.shape[1:] == (models.token_count(self.config.model.image), self.config.model.width):
                return images
            if len(images.shape) == 3:
                images = images[None]
            if images.dtype == np.uint8 and images.shape[1:] == (size, size, 3):
                return images
        elif isinstance(images, (str, os.PathLike, Image.Image)):
            raise CocaError("images are given as a list: put the one picture into a list")
        return list(images)

    def _over_images(
        self, function: Callable, images: Any, *beside: np.ndarray, batcher: Batcher | None = None
    ) -> np.ndarray:
        """`function` of the parameters, of all images and of what lies beside them, [N, …] each."""
        batcher, model, images = batcher or self._batcher, self.config.model, self._listed(images)
        if not isinstance(images, list):
            return batcher(function, images, *beside)
        parts = []
        for i in range(0, len(images), _IMAGES_AT_ONCE):
            now = slice(i, i + _IMAGES_AT_ONCE)
            pictures = np.stack([load_input(x, model) for x in images[now]])
            parts.append(batcher(function, pictures, *[x[now] for x in beside]))
        nothing = np.zeros((0, *input_shape(model)), input_dtype(model))
        return np.concatenate(parts) if parts else batcher(function, nothing, *beside)


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


def load(path: str | os.PathLike, *, all_devices: bool = False, batch_size: int = 0) -> Coca:
    """The model of a checkpoint, from nothing but its folder.

    Args:
      path: a run's folder, its `checkpoints` folder, or one checkpoint in that; on a disk or in a bucket (gs://…).
      all_devices: whether to spread the work, and a large model, over all devices (of all processes); by default it
        comes to the first.
      batch_size: see `Coca`.

    Raises:
      CocaError: there is no checkpoint.
    """
    mesh = None
    if all_devices and jax.device_count() > 1:
        mesh = sharding.make_mesh(MeshConfig(), checkpoint.load_record(path).config.model)
    restored = checkpoint.load(path, mesh)
    vocabulary = Vocabulary.from_bytes(restored.record.vocabulary)
    return Coca(restored.record.config, restored.params, vocabulary, restored.step, mesh=mesh, batch_size=batch_size)
