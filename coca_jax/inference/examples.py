"""The examples that a model is given: images, clips or pairs of images, as one array or as a list that is read in parts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from coca_jax.config import Config
from coca_jax.data.images.inputs import input_dtype, input_shape, load_input
from coca_jax.data.images.video import load_clip
from coca_jax.embedding_index.arguments import as_list, is_one_image
from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import token_count

_IMAGES_AT_ONCE = 4_096  # decoded images held in memory while a long list of paths is processed


class Examples:
    """Forms and loads a model's examples: single images, clips, or pairs."""

    def __init__(self, config: Config, as_trained: bool = False, frames: int = 0):
        """Args:
        as_trained: whether an example is what it was in training.
        frames: otherwise those of a clip; 0: an example is an image.
        """
        self._model, self._images = config.model, config.images_per_example if as_trained else frames
        self._pairs = config.objective.name == "pairs" and as_trained
        self._shape, self._dtype = input_shape(config.model, self._images), input_dtype(config.model)
        self._tokens = (token_count(config.model.image), config.model.width)

    def formed(self, examples: Any) -> Any:
        """An array that the model takes unchanged, of N examples or of their tokens; otherwise a list of N examples."""
        shape = tuple(getattr(examples, "shape", ()))
        kind = "pair" if self._pairs else "clip" if self._images else "image"
        if not self._pairs and is_one_image(examples, len(self._shape)) and shape[1:] != self._tokens:
            examples, shape = (examples[None] if shape else [examples]), (1, *shape)
        if shape[1:] == self._tokens or (shape[1:] == self._shape and examples.dtype == self._dtype):
            return examples
        return as_list(examples, f"{kind}s", kind)

    def loaded(self, examples: list[Any]) -> Iterator[tuple[slice, np.ndarray]]:
        """The examples of a list, part by part: which of them, and the model's input for them."""
        at_once = max(1, _IMAGES_AT_ONCE // max(1, self._images))
        for start in range(0, max(1, len(examples)), at_once):
            part = slice(start, start + at_once)
            yield part, self.stacked([self.load(one) for one in examples[part]])

    def stacked(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Inputs of N examples as one array, which may be empty."""
        return np.stack(inputs) if inputs else np.zeros((0, *self._shape), self._dtype)

    def load(self, example: Any) -> np.ndarray:
        """The model's input of one example; CocaError if it cannot be read."""
        if self._pairs:
            if isinstance(example, (str, bytes)) or not hasattr(example, "__len__") or len(example) != 2:
                raise CocaError(f"a {type(example).__name__} is no pair of images: give two images for each example")
            return np.stack([load_input(image, self._model) for image in example])
        if self._images:
            return load_clip(example, self._model.image.size, self._images)
        return load_input(example, self._model)
