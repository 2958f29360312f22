"""A classification whose embeddings are known."""

import numpy as np
import pytest

from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from tests.evaluation.fakes import with_tasks

CLASSES, IMAGES = 12, 200


class Axes:
    """Embeds images and texts as rows of a table: image and text i are known by their number."""

    can_embed, can_caption, batch_size, digest = True, False, 16, "0123456789abcdef"
    classes = ()  # it has no head

    def __init__(self, images_ME: np.ndarray, texts: dict[str, np.ndarray]):
        self._images_ME, self._texts, self.embedded = images_ME, texts, 0

    def embed_images(self, images):
        return self._images_ME[images[np.arange(len(images))][:, 0, 0, 0]]

    def embed_texts(self, texts, long_text="error"):
        self.embedded += len(texts)
        return np.stack([self._texts[text] for text in texts])


def normalised(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def random_task():
    rng = np.random.default_rng(0)
    images_ME, texts_CE = normalised(rng.normal(size=(IMAGES, 8))), normalised(rng.normal(size=(CLASSES, 8)))
    names = [f"class {i}" for i in range(CLASSES)]
    targets = rng.integers(0, CLASSES - 1, IMAGES)  # the last class has no picture
    pictures = np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, 4, 4, 3)).copy()
    task = Classification("class", names, ("{}",), np.arange(IMAGES), targets)
    dataset = EvaluationDataset(
        "random", with_tasks("classification"), pictures, [("x",)] * IMAGES, classifications=(task,)
    )
    return Axes(images_ME, dict(zip(names, texts_CE, strict=True))), dataset, images_ME @ texts_CE.T
