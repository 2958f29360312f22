"""A model with its vocabulary: embed, classify, caption, answer, index, predict, for any number of images and texts.

coca = coca_jax.load("runs/quickstart")
coca.caption(["a.png", "b.png"], GenerationOptions(beams=6))  # coca_jax.generation
coca.answer(["a.png"], ["what color is the car?"])
coca.classify(["a.png"], labels=["cat", "dog"], templates=["a photo of a {}"])
coca.index(["a.png", "b.png"]).search("a cat on a sofa", k=1)
coca.predict(["a.png"])[0].label  # of a run with a head
"""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.special

from coca_jax import objectives
from coca_jax.config import Config
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.embedding_index.arguments import as_texts, whole_number
from coca_jax.embedding_index.index import Index
from coca_jax.errors import CocaError
from coca_jax.generation import GREEDY, GenerationOptions
from coca_jax.inference import functions
from coca_jax.inference.batching import Batcher
from coca_jax.inference.examples import Examples
from coca_jax.inference.prediction import Prediction
from coca_jax.inference.zero_shot import Template, text_classifier
from coca_jax.models import coca as models
from coca_jax.trainer.model_info import model_digest


class Coca:
    """A CoCa for inference.

    `images` may be any iterable of images (PIL images, paths, bytes of image files, arrays [H, W] or [H, W, 3], uint8 or
    float in 0..1), one such image, an array [N, H, W, 3], precomputed image tokens [N, tokens, width], or an object that
    is indexed like one of these arrays: then each process reads the rows that its devices hold, batch by batch.

    `texts` may be any ordered iterable of texts, but not a single text.

    On a mesh each batch is spread over the devices, and each process gets all results. Processes that share a mesh must
    make the same calls, in the same order.

    A model with a head has `classes`: `predict` gives their probabilities. Its examples are images, clips, or pairs of two
    images, each with a text if it was trained so.

    Every method raises CocaError if an image cannot be read (the error names it), a text exceeds the model's positions,
    an argument has an impossible form or value, or the model has no branch for it.

    Args:
      config, params, vocabulary, step: of the run; all but the parameters are attributes, too.
      mesh: of the parameters; None: one device.
      between_batches: called before each batch; an exception that it raises ends the work.
      batch_size: rounded up to a multiple of the mesh's batch axes; 0: that of the run's evaluations.
      classes: what the outputs of its head stand for, class names or answers; an attribute, too.

    Attributes:
      can_embed, can_caption: whether the model has the contrastive and the captioning branch.
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
        classes: Sequence[str] = (),
    ):
        self.config, self.vocabulary, self.step, self.classes = config, vocabulary, step, tuple(classes)
        self._params = params
        self._model = objectives.build(config).model
        self._images, self._as_trained = Examples(config), Examples(config, as_trained=True)
        images = max(1, config.images_per_example) if config.objective.name != "pretraining" else 1
        rows = max(1, (batch_size or config.evaluation.batch_size) // images)
        self._batcher = Batcher(params, mesh, rows, between_batches)
        self.batch_size = self._batcher.size
        self.can_embed, self.can_caption = self._model.can_embed, self._model.can_caption

    @property
    def parameter_count(self) -> int:
        """The number of parameters."""
        return sum(x.size for x in jax.tree.leaves(self._params))

    @functools.cached_property
    def temperature(self) -> float:
        """The trained temperature: similarities divided by it are the logits of probabilities."""
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        return float(functions.apply(self._model, "bounded_temperature", self._params))

    def embed_images(self, images: Any) -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E]."""
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        return self._over(self._images, functools.partial(functions.apply, self._model, "embed_images"), images)

    def embed_videos(self, clips: Any, frames: int = 16) -> np.ndarray:
        """The normalised mean of the embeddings of each clip's frames (paper, MSR-VTT): float32 [N, E].

        Args:
          clips: an iterable of clips (paths, bytes of files, arrays [T, H, W, 3] and lists of images), one path, file or
            array, an array [N, T, H, W, 3], or an object that is indexed like one.
          frames: of each clip, uniformly sampled.
        """
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        loader = Examples(self.config, frames=whole_number(frames, "frames", 1))
        return self._over(loader, functools.partial(functions.embed_videos, self._model), clips)

    def index(self, images: Iterable[Any], names: Iterable[str] | None = None) -> Index:
        """An index of images to search and to save; an iterable is processed in parts. See `Index.add`."""
        index = Index(self, [], [])
        index.add(images, names)
        return index

    def load_index(self, folder: str | os.PathLike) -> Index:
        """The index that was saved in a folder; errors as `Index.load`."""
        return Index.load(self, folder)

    @functools.cached_property
    def digest(self) -> str:
        """16 hex digits that identify the model: a hash of parameters, architecture and vocabulary."""
        return model_digest(self.config.model, self._params, self.vocabulary.model_bytes)

    def embed_texts(self, texts: Iterable[str], long_text: str = "error") -> np.ndarray:
        """L2-normalised embeddings, float32 [N, E]; texts that exceed the model's positions: "error", or "truncate"."""
        self._require(self.can_embed, "embeddings", "contrastive_weight")
        ids = self._encode(texts, "texts", long_text)
        function = functools.partial(functions.apply, self._model, "embed_texts")
        return self._batcher(function, ids, ids != self.vocabulary.pad_id)

    def text_classifier(self, labels: Iterable[str], templates: Iterable[Template]) -> np.ndarray:
        """One vector per class, float32 [C, E]; see `zero_shot.text_classifier`."""
        return text_classifier(self.embed_texts, labels, templates)

    def class_probabilities(
        self, images: Any, labels: Iterable[str], templates: Iterable[Template] = ("{}",)
    ) -> np.ndarray:
        """Zero-shot probabilities, float32 [N, C]: softmax(similarities / temperature)."""
        classifier = self.text_classifier(labels, templates)
        return scipy.special.softmax(self.embed_images(images) @ classifier.T / self.temperature, axis=1)

    def classify(self, images: Any, labels: Iterable[str], templates: Iterable[Template] = ("{}",)) -> list[str]:
        """The most likely label of each image, by the contrastive embeddings alone (paper §4.2.2); labels may be a set."""
        labels = as_texts(sorted(labels, key=str) if isinstance(labels, (set, frozenset)) else labels, "labels")
        return [labels[i] for i in self.class_probabilities(images, labels, templates).argmax(axis=1)]

    def caption(
        self, images: Any, options: GenerationOptions = GREEDY, *, prompts: str | Iterable[str] = "", seed: int = 0
    ) -> list[str]:
        """A caption for each image.

        Args:
          prompts: beginnings of the captions: one text for all images, or one for each.
          seed: for sampling. An image's draws depend on the seed and its position in the list alone.
        """
        return self.vocabulary.decode(self._generate(images, options, prompts, seed)[1])

    def caption_log_likelihoods(
        self, images: Any, texts: Iterable[str], *, per_token: bool = False, long_text: str = "error"
    ) -> np.ndarray:
        """log p(text | image) of each text for each image, float32 [N, C]; `long_text` as for `embed_texts`.

        With `per_token` the mean over the text's tokens and EOS instead of the sum.
        """
        self._require(self.can_caption, "captions", "captioning_weight")
        ids = self._encode(texts, "texts", long_text)
        lengths = (ids != self.vocabulary.pad_id).sum(axis=1).astype(np.float32)
        longest = int(lengths.max(initial=1))
        ids = ids[:, : min(1 << (longest - 1).bit_length(), ids.shape[1])]
        if not len(ids):
            return np.zeros((len(self._images.formed(images)), 0), np.float32)
        function = functools.partial(functions.log_likelihoods, self._model, ids_CL=ids, pad_id=self.vocabulary.pad_id)
        return self._over(self._images, function, images, batcher=self._generation) / (lengths - 1 if per_token else 1)

    def predict(self, images: Any, texts: str | Iterable[str] | None = None) -> list[Prediction]:
        """The classes of each example, by the model's head; arguments as for `head_probabilities`."""
        return [Prediction.of(self.classes, row) for row in self.head_probabilities(images, texts)]

    def predict_videos(self, clips: Any) -> list[Prediction]:
        """The classes of each clip, by a head that was trained on clips; `clips` as for `embed_videos`."""
        if not self.config.images_per_example or self.config.objective.name == "pairs":
            raise CocaError("this model's head was not trained on clips: use predict")
        return self.predict(clips)

    def head_probabilities(
        self, images: Any, texts: str | Iterable[str] | None = None, long_text: str = "error"
    ) -> np.ndarray:
        """The probabilities of `classes`, float32 [N, C].

        Args:
          images: N images; of a model of clips N clips, as `embed_videos` takes them; of pairs N sequences of two images.
          texts: questions, hypotheses or statements, one for all or one for each, if the model was trained with texts.
          long_text: as for `embed_texts`.
        """
        if not self.classes:
            raise CocaError("this model has no head: adapt it with a config of configs/adapt, or use classify")
        reads_texts = self.config.objective.reads_text
        if reads_texts == (texts is None):
            what = "needs a text for each example" if reads_texts else "takes no texts"
            raise CocaError(f"the head of objective {self.config.objective.name} {what}: change the argument texts")
        examples = self._as_trained.formed(images)
        arrays: tuple[np.ndarray, ...] = ()
        if texts is not None:
            ids = self._encode(self._one_for_each(texts, len(examples), "texts"), "texts", long_text)
            if self.config.objective.name == "vqa":  # in training the answer follows
                ids[ids == self.vocabulary.eos_id] = self.vocabulary.pad_id
            arrays = (ids, ids != self.vocabulary.pad_id)
        function = functools.partial(functions.head_probabilities, self._model)
        return self._over(self._as_trained, function, examples, *arrays)

    def answer(
        self,
        images: Any,
        questions: str | Iterable[str],
        options: GenerationOptions = GREEDY,
        *,
        seed: int = 0,
        in_words: bool = False,
        long_text: str = "error",
    ) -> list[str]:
        """The answer to a question about each image: one question for all images, or one each; `long_text` as for
        `embed_texts`.

        A model that was trained on questions (vqa) chooses among its `classes`. Any other, or with `in_words`, generates
        the answer: it is the text that `caption` generates after the question, without it.
        """
        if self.config.objective.name == "vqa" and not in_words:
            return [self.classes[i] for i in self.head_probabilities(images, questions, long_text).argmax(axis=1)]
        prompts, ids = self._generate(images, options, questions, seed, long_text)
        asked = prompts != self.vocabulary.pad_id
        ids[:, : asked.shape[1]][asked] = self.vocabulary.pad_id
        return self.vocabulary.decode(ids)

    def _generate(
        self, images: Any, options: GenerationOptions, prompts: str | Iterable[str], seed: int, long_text: str = "error"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the prompts [N, P] and of the generated texts [N, L], which begin with them."""
        self._require(self.can_caption, "captions", "captioning_weight")
        if not isinstance(options, GenerationOptions):
            raise CocaError(f"options is a {type(options).__name__}: give coca_jax.generation.GenerationOptions(…)")
        seed = whole_number(seed, "seed", 0, 2**32)
        images, v = self._as_trained.formed(images), self.vocabulary
        ids = self._encode(self._one_for_each(prompts, len(images), "prompts"), "prompts", long_text)
        ids[ids == v.eos_id] = v.pad_id  # the text goes on
        longest = int((ids != v.pad_id).sum(axis=1).max(initial=1))
        ids = ids[:, : 1 << (longest - 1).bit_length()]  # so that few lengths are ever compiled
        draws = np.stack([np.full(len(ids), seed), np.arange(len(ids))], axis=1).astype(np.uint32)
        function = functools.partial(functions.generate, self._model, options, v.bos_id, v.eos_id, v.pad_id)
        return ids, self._over(self._as_trained, function, images, ids, draws, batcher=self._generation)

    @functools.cached_property
    def _generation(self) -> Batcher:
        """A batcher whose decoder parameters have the layout of generation: converted once, not at each call."""
        return self._batcher.remade(functools.partial(models.generation_parameters, config=self.config.model))

    @staticmethod
    def _one_for_each(texts: str | Iterable[str], count: int, name: str) -> list[str]:
        texts = [texts] * count if isinstance(texts, str) else as_texts(texts, name)
        if len(texts) != count:
            raise CocaError(f"there are {len(texts)} {name} for {count} images: give one for each, or for all")
        return texts

    def _require(self, able: bool, what: str, weight: str) -> None:
        if not able:
            trained = f"with objective.pretraining.{weight} = 0"
            if self.config.objective.name != "pretraining":
                trained = f"for {self.config.objective.name}: give the run that it was adapted from"
            raise CocaError(f"this model gives no {what}: it was trained {trained}")

    def _encode(self, texts: Iterable[str], name: str, long_text: str = "error") -> np.ndarray:
        """Token ids, int32 [N, L]."""
        if long_text not in ("error", "truncate"):
            raise CocaError(f'long_text is {long_text!r}: give "error" or "truncate"')
        return self.vocabulary.encode(as_texts(texts, name), self.config.model.text.length, long_text, "shorten it")

    def _over(
        self, loader: Examples, function: Callable, examples: Any, *beside: np.ndarray, batcher: Batcher | None = None
    ) -> np.ndarray:
        """`function` of the parameters, all examples and the arrays beside them, [N, …] each; see `Examples`."""
        batcher, examples = batcher or self._batcher, loader.formed(examples)
        if not isinstance(examples, list):
            return batcher(function, examples, *beside)
        parts = [batcher(function, some, *[x[part] for x in beside]) for part, some in loader.loaded(examples)]
        return np.concatenate(parts)
