"""An evaluation dataset and a model that knows its answers, right as often as a test wants."""

import zlib

import numpy as np

from coca_jax.config import (
    CaptioningConfig,
    Config,
    DatasetConfig,
    EvaluationConfig,
    EvaluationDatasetConfig,
    ImageEncoderConfig,
    ModelConfig,
    evaluation_from_config_dict,
    to_config_dict,
)
from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.open_dataset import named_datasets
from coca_jax.evaluation.predict import TextClassifiers
from coca_jax.evaluation.runner import evaluate_dataset
from coca_jax.evaluation.tasks.base import DatasetResult
from coca_jax.pages.blocks import Block, Columns, Gallery

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# As a run's own digit scenes are evaluated.
OWN = EvaluationDatasetConfig(
    dataset=DatasetConfig(format="digit_scenes"),
    tasks=("retrieval", "classification", "captioning"),
    captioning=CaptioningConfig(scores=()),
)


def with_tasks(*tasks: str, **keys) -> EvaluationDatasetConfig:
    return EvaluationDatasetConfig(tasks=tasks, **keys)


def run(size: int) -> Config:
    """The config of a run whose images have this size."""
    return Config(model=ModelConfig(image=ImageEncoderConfig(size=size, patch=size // 2)))


def opened(config: EvaluationConfig, names=(), size: int = 16) -> list[EvaluationDataset]:
    """The datasets of these names, all of them open."""
    config = evaluation_from_config_dict(to_config_dict(config), tuple(names))
    return [one.open() for one in named_datasets(config, run(size))]


def evaluate(coca, dataset: EvaluationDataset, gallery: int = 24) -> DatasetResult:
    return evaluate_dataset(coca, dataset, gallery, TextClassifiers(coca))


def blocks(result: DatasetResult, kind: type) -> list[Block]:
    """The blocks of one kind in a result's section, those in columns too."""
    every = list(result.blocks)
    for block in result.blocks:
        if isinstance(block, Columns):
            every += [one for column in block.columns for one in column]
    return [block for block in every if isinstance(block, kind)]


def gallery(result: DatasetResult, title: str) -> Gallery:
    (one,) = (block for block in blocks(result, Gallery) if block.title == title)
    return one


def digit_dataset(
    images: int = 60, classes: int = 10, name: str = "squares", config: EvaluationDatasetConfig = OWN
) -> EvaluationDataset:
    """Grey squares; class c's captions are "a <c>" and, for every other image, "one <c>", which means the same."""
    rng = np.random.default_rng(0)
    names = DIGITS if classes == 10 else tuple(f"thing {i}" for i in range(classes))
    targets = np.arange(images) % classes
    pixels = rng.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    captions = [(("a " if i % 2 else "one ") + names[t],) for i, t in enumerate(targets)]

    def grammar(text: str):
        article, _, noun = text.partition(" ")
        return names.index(noun) if article in ("a", "one") and noun in names else None

    task = Classification("digit", names, ("a {}", "one {}"), np.arange(images), targets)
    return EvaluationDataset(
        name, config, pixels, captions, grammar, (task,), queries=(f"a {names[3]}", "no such thing")
    )


class FakeCoca:
    """Embeds an image as its caption's meaning, and gets every `wrong_every`-th image wrong."""

    batch_size = 2_000  # all images of a test at once: `wrong_every` counts from the first of a call
    classes = ()  # it has no head

    def __init__(
        self, known: EvaluationDataset, wrong_every: int = 0, can_embed: bool = True, can_caption: bool = True
    ):
        self.can_embed, self.can_caption = can_embed, can_caption
        self._known = known
        self._captions = {image.tobytes(): own[0] for image, own in zip(known.images, known.captions, strict=True)}
        self._wrong_every = wrong_every

    def caption(self, images, options=None, *, prompts: str = "") -> list[str]:
        assert self.can_caption
        return [
            self._answer(i, self._captions[image.tobytes()]) for i, image in enumerate(images[np.arange(len(images))])
        ]

    def embed_images(self, images) -> np.ndarray:
        assert self.can_embed
        return self.embed_texts(
            [self._answer(i, self._captions[image.tobytes()]) for i, image in enumerate(images[np.arange(len(images))])]
        )

    def embed_texts(self, texts, long_text: str = "error") -> np.ndarray:
        assert self.can_embed
        seeds = [zlib.crc32(repr(self._known.grammar(text)).encode()) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=32) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _answer(self, index: int, caption: str) -> str:
        if self._wrong_every and index % self._wrong_every == 0:
            others = [own[0] for own in self._known.captions]
            wrong = self._known.grammar(caption)
            return next(other for other in others if self._known.grammar(other) != wrong)
        return caption


class Unreadable:
    """Images of which none can be read."""

    def __init__(self, count: int):
        self._black, self.unreadable = digit_dataset(count).images, {}
        self.shape, self.dtype = self._black.shape, self._black.dtype

    def __len__(self):
        return len(self._black)

    def __getitem__(self, rows):
        self.unreadable |= {int(row): "not an image" for row in np.atleast_1d(rows)}
        return self._black[rows]
