"""A held-out set and a model that knows its answers, right as often as it is told to be."""

import zlib

import numpy as np

from coca_jax.config import EvaluationConfig, evaluation_from_config_dict, to_config_dict
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.open_dataset import named_sets

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def opened_sets(config: EvaluationConfig, names, size: int) -> list[EvaluationSet]:
    """The datasets of these names, all of them open."""
    config = evaluation_from_config_dict(to_config_dict(config), tuple(names))
    return [one.open() for one in named_sets(config, size)]


def digit_set(images: int = 60, classes: int = 10) -> EvaluationSet:
    """Grey squares; class c's captions are "a <c>" and, for every other image, "one <c>", which means the same."""
    rng = np.random.default_rng(0)
    names = DIGITS if classes == 10 else tuple(f"thing {i}" for i in range(classes))
    targets = np.arange(images) % classes
    pictures = rng.integers(0, 256, (images, 16, 16, 3), dtype=np.uint8)
    captions = [(("a " if i % 2 else "one ") + names[t],) for i, t in enumerate(targets)]

    def meaning(text: str):
        article, _, name = text.partition(" ")
        return names.index(name) if article in ("a", "one") and name in names else None

    task = Classification("digit", names, ("a {}", "one {}"), np.arange(images), targets)
    return EvaluationSet("squares", pictures, captions, meaning, (task,), (f"a {names[3]}", "no such thing"))


class FakeCoca:
    """Embeds an image as its caption's meaning, and gets every `wrong_every`-th picture wrong."""

    batch_size = 2_000  # all pictures of a test at once: `wrong_every` counts from the first of a call

    def __init__(self, known: EvaluationSet, wrong_every: int = 0, can_embed: bool = True, can_caption: bool = True):
        self.can_embed, self.can_caption = can_embed, can_caption
        self._known = known
        self._captions = {image.tobytes(): own[0] for image, own in zip(known.images, known.captions, strict=True)}
        self._wrong_every = wrong_every

    def caption(self, images: np.ndarray, options=None, *, prompts: str = "") -> list[str]:
        assert self.can_caption
        return [self._says(i, self._captions[image.tobytes()]) for i, image in enumerate(images)]

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        assert self.can_embed
        says = [self._says(i, self._captions[image.tobytes()]) for i, image in enumerate(images)]
        return self.embed_texts(says)

    def embed_texts(self, texts, long_text: str = "error") -> np.ndarray:
        assert self.can_embed
        seeds = [zlib.crc32(repr(self._known.meaning(text)).encode()) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=32) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _says(self, index: int, caption: str) -> str:
        if self._wrong_every and index % self._wrong_every == 0:
            others = [own[0] for own in self._known.captions]
            wrong = self._known.meaning(caption)
            return next(other for other in others if self._known.meaning(other) != wrong)
        return caption
