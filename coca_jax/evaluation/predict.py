"""The model's predictions on an evaluation dataset: each image is read and shown to the model once for all tasks."""

import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import tqdm

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation.dataset import Classification, EvaluationDataset, Images, SelectedImages, TrainingImages
from coca_jax.generation import GenerationOptions
from coca_jax.inference.zero_shot import text_classifier

_log = logging.getLogger(__name__)
_BATCHES = 4  # of images in memory
_LOG_SECONDS = 30  # between two lines of progress, where there is no terminal


@dataclasses.dataclass(frozen=True)
class Needs:
    """The predictions that tasks read."""

    embeddings: bool = False  # of the images
    texts: tuple[str, ...] = ()  # to embed
    classifiers: tuple[Classification, ...] = ()  # whose text classifiers are needed
    captions: bool = False
    likelihoods: tuple[Classification, ...] = ()  # whose classes' captions are scored
    head: bool = False  # the probabilities of its classes
    answers: bool = False  # to the dataset's texts, which are questions, generated in words
    training: bool = False  # embeddings of the training images

    def __or__(self, other: Self) -> "Needs":
        return Needs(
            self.embeddings or other.embeddings,
            tuple(dict.fromkeys(self.texts + other.texts)),
            self.classifiers + other.classifiers,
            self.captions or other.captions,
            self.likelihoods + other.likelihoods,
            self.head or other.head,
            self.answers or other.answers,
            self.training or other.training,
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Predictions:
    """The model's predictions on the M images that could be read; a part that was not needed is empty.

    Embeddings are float32 and L2-normalised: [M, E] of the images, [E] of each text, and for each classification [N, E] of
    its `prompted_names`. Log likelihoods, [m, C], are those of the captions of its C candidate classes. Training embeddings,
    [T, E], are those of the training images that could be read.
    """

    rows: np.ndarray  # int64 [M], which of the dataset's images those are
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)  # the other records, counted by cause
    image_embeddings: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))
    text_embeddings: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    classifiers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0  # that similarities are divided by in training
    captions: Sequence[str] = ()
    log_likelihoods: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    classes: Sequence[str] = ()  # of the head
    head_probabilities: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))  # [M, C]
    answers: Sequence[str] = ()
    training_rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))  # [T], which those are
    training_embeddings: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def part(self, task: Classification) -> tuple[np.ndarray, np.ndarray]:
        """The images of a classification that could be read: their places among `rows`, and their targets [m, K]."""
        readable = np.isin(task.indices, self.rows)
        return np.searchsorted(self.rows, task.indices[readable]), task.right_classes[readable]

    def embedded(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of texts, float32 [len(texts), E]."""
        return np.stack([self.text_embeddings[text] for text in texts])


class TextClassifiers:
    """The zero-shot classifiers of a model (CLIP, arXiv 2103.00020, §3.1.4); datasets with the same texts share one."""

    def __init__(self, coca: Any):
        self._coca = coca
        self._built: dict[Any, np.ndarray] = {}

    def __call__(self, task: Classification, long_text: str) -> np.ndarray:
        """One vector for each of the classification's prompted names, float32 [N, E], L2-normalised.

        Raises:
          CocaError: a prompt is too long, unless `long_text` is "truncate".
        """
        names, templates = task.prompted_names, tuple(task.templates)
        key = (tuple(names), templates, long_text)
        if key not in self._built:
            each = [name for own in names for name in own]
            place = {name: i for i, name in enumerate(dict.fromkeys(each))}  # equal names get one vector, bit for bit
            distinct = text_classifier(lambda texts: self._coca.embed_texts(texts, long_text), list(place), templates)
            vectors = distinct[[place[name] for name in each]]
            if len(each) > len(names):  # synonyms count alike
                vectors = np.add.reduceat(vectors, np.cumsum([0, *map(len, names)])[:-1], axis=0)
                vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            self._built[key] = vectors
        return self._built[key]


def predict(coca: Any, dataset: EvaluationDataset, needs: Needs, classifiers: TextClassifiers) -> Predictions:
    """Shows the model, a `coca_jax.inference.model.Coca`, each image of the dataset once, for all `needs`.

    Raises:
      CocaError: not one image can be read, or a text is too long.
    """
    images, config = dataset.images, dataset.config
    frames, options = config.dataset.frames, GenerationOptions(beams=config.captioning.beams)
    # Whole batches, so that an image's batch is the same as if all images were given at once; or a batch of frames.
    size = max(
        1, (coca.batch_size // frames if frames else coca.batch_size * _BATCHES) // config.dataset.evaluation_views
    )
    starts = range(0, len(images), size)
    embeddings: list[np.ndarray] = []
    captions: list[str] = []
    head: list[np.ndarray] = []
    answers: list[str] = []
    likelihoods: dict[str, list[np.ndarray]] = {task.name: [] for task in needs.likelihoods}
    for start in _with_progress(starts, dataset.name, len(images)):
        rows = np.arange(start, min(start + size, len(images)))
        some = SelectedImages(images, rows)
        if needs.embeddings:
            embeddings.append(coca.embed_videos(some, frames) if frames else coca.embed_images(some))
        if needs.captions:
            captions += coca.caption(some, options, prompts=config.captioning.prompt)
        texts = [dataset.texts[row] for row in rows] if dataset.texts else None
        if needs.head:
            head.append(_head_probabilities(coca, some, config.dataset.evaluation_views, texts, config.long_text))
        if needs.answers:
            answers += coca.answer(some, texts, options, in_words=True, long_text=config.long_text)
        for task in needs.likelihoods:
            chosen = SelectedImages(some, task.indices[np.isin(task.indices, rows)] - start)
            likelihoods[task.name].append(_log_likelihoods(coca, config, task, chosen))
    lost = _unreadable_rows(dataset.images)
    readable = np.setdiff1d(np.arange(len(images)), list(lost))
    if not len(readable):
        raise CocaError(f"none of the {len(images)} held-out records of {dataset.name} can be read: replace them")
    vectors = coca.embed_texts(list(needs.texts), config.long_text) if needs.texts else ()
    return Predictions(
        rows=readable,
        unreadable=dict(Counter(dataset.unreadable) + Counter(lost.values())),
        **({"image_embeddings": np.concatenate(embeddings)[readable]} if needs.embeddings else {}),
        text_embeddings=dict(zip(needs.texts, vectors, strict=True)),
        classifiers={task.name: classifiers(task, config.long_text) for task in needs.classifiers},
        temperature=coca.temperature if any(task.members for task in needs.classifiers) else 1.0,
        captions=[captions[row] for row in readable] if needs.captions else (),
        classes=coca.classes if needs.head else (),
        **({"head_probabilities": np.concatenate(head)[readable]} if needs.head else {}),
        answers=[answers[row] for row in readable] if needs.answers else (),
        log_likelihoods={
            task.name: np.concatenate(likelihoods[task.name])[np.isin(task.indices, readable)]
            for task in needs.likelihoods
        },
        **(_of_training(coca, dataset.training) if needs.training and dataset.training else {}),
    )


def _head_probabilities(
    coca: Any, images: SelectedImages, views: int, texts: Sequence[str] | None, long_text: str
) -> np.ndarray:
    """float32 [n, C]; of several views the means over them."""
    if views == 1:
        return coca.head_probabilities(images, texts, long_text)
    probabilities = coca.head_probabilities(_Views(images))
    return probabilities.reshape(len(images), views, -1).mean(axis=1)


class _Views:
    """The views of images [n, views, …] as images of their own, [n·views, …]: each process reads those of its devices."""

    def __init__(self, images: SelectedImages):
        count, self._each, *shape = images.shape
        self._images, self.shape, self.dtype = images, (count * self._each, *shape), images.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        own = np.unique(rows // self._each)
        return self._images[own][np.searchsorted(own, rows // self._each), rows % self._each]


def _of_training(coca: Any, training: TrainingImages) -> dict[str, np.ndarray]:
    """The parts of the predictions on training images."""
    embeddings = coca.embed_images(training.images)
    rows = np.setdiff1d(np.arange(len(embeddings)), list(_unreadable_rows(training.images)))
    return {"training_rows": rows, "training_embeddings": embeddings[rows]}


def _log_likelihoods(
    coca: Any, config: EvaluationDatasetConfig, task: Classification, images: SelectedImages
) -> np.ndarray:
    """float32 [n, C]: of the candidates' captions."""
    prompt, per_token = config.classification.likelihood_prompt, config.classification.likelihood_per_token
    texts = [prompt.replace("{}", task.labels[number]) for number in task.candidate_classes]
    return coca.caption_log_likelihoods(images, texts, per_token=per_token, long_text=config.long_text)


def _unreadable_rows(images: Images) -> dict[int, str]:
    """The rows of the images that could not be read, by whichever process had to, and the causes."""
    own = getattr(images, "unreadable", {})
    rows: dict[int, str] = {}
    for part in hosts.from_each(json.dumps(list(own.items())).encode() if own else b""):
        rows |= json.loads(part or b"[]")
    return dict(sorted(rows.items()))  # all processes count in one order


def _with_progress(starts: range, name: str, total: int) -> Iterable[int]:
    """The starts, with a bar on a terminal and a line now and then elsewhere."""
    quiet = None if _log.isEnabledFor(logging.INFO) else True  # None: quiet unless on a terminal
    bar = tqdm.tqdm(starts, desc=name, unit="batch", leave=False, disable=quiet)
    last = time.monotonic()
    for start in bar:
        yield start
        if bar.disable and start + starts.step < total and time.monotonic() - last >= _LOG_SECONDS:
            last = time.monotonic()
            _log.info("%s: %s of %s images", name, f"{start + starts.step:,}", f"{total:,}")
