"""A model whose embeddings are whole numbers: scores are exact, and many of them equal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coca_jax.data.images.decode import load_image
from coca_jax.embedding_index.index import Index

WIDTH = 4


class FakeModel:
    """Embeds a picture as what its first pixel says, and a text as its length and first letter."""

    def __init__(self, digest: str = "0123456789abcdef", step: int = 7):
        self.digest, self.step = digest, step
        self.embedded = 0  # pictures, so far

    def embed_images(self, images: Any) -> np.ndarray:
        images = images[None] if isinstance(images, np.ndarray) and images.ndim == 3 else images
        pictures = [load_image(image, 8) for image in images]
        self.embedded += len(pictures)
        rows = [[*(picture[0, 0].astype(int) % 3 - 1), 1] for picture in pictures]
        return np.array(rows, np.float32).reshape(-1, WIDTH)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[len(text) % 3 - 1, ord(text[0]) % 3 - 1, 1, 1] for text in texts]
        return np.array(rows, np.float32).reshape(-1, WIDTH)


def index_of(model: FakeModel, images: Any, names: Any = None) -> Index:
    """As `Coca.index`."""
    index = Index(model, [], [])
    index.add(images, names)
    return index


def random_images(count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 8, 8, 3], each of one colour."""
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3))
    return np.broadcast_to(colours, (count, 8, 8, 3)).astype(np.uint8)
