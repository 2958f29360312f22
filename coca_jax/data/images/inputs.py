"""The array that a model takes of an image: pixels, or stored tokens for `model.image.kind = precomputed`.

Stored tokens are an image encoder's output: the .npy file of an array [tokens, width] of float16 or float32 (bfloat16 has
no .npy form), in place of the encoded image in any format of records. Batches hold them as float32, in which both are
exact. The header is checked before any value is read, and nothing is ever unpickled.
"""

import io
import os
from typing import Any

import numpy as np

from coca_jax.config import AugmentationConfig, DatasetConfig, ModelConfig
from coca_jax.data.images.augment import view
from coca_jax.data.images.decode import load_image, read_file
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

_NO_AUGMENTATION = AugmentationConfig()


def input_shape(model: ModelConfig, images: int = 0) -> tuple[int, ...]:
    """(size, size, 3); of clips and pairs (images, size, size, 3); of stored tokens (tokens, width)."""
    if model.image.kind == "precomputed":
        return model.image.tokens, model.width
    return (images,) * bool(images) + (model.image.size, model.image.size, 3)


def input_dtype(model: ModelConfig) -> np.dtype:
    """uint8 of pixels, float32 of stored tokens."""
    return np.dtype(np.float32 if model.image.kind == "precomputed" else np.uint8)


def decode_input(
    data: bytes,
    model: ModelConfig,
    dataset: DatasetConfig,
    rng: np.random.Generator | None = None,
    augmentation: AugmentationConfig = _NO_AUGMENTATION,
) -> np.ndarray:
    """The model's input of a record's image, of `input_shape` and `input_dtype`; arguments and errors as `augment.view`."""
    if model.image.kind == "precomputed":
        return decode_tokens(data, input_shape(model))
    return view(data, model.image.size, dataset, rng, augmentation)


def load_input(image: Any, model: ModelConfig) -> np.ndarray:
    """The model's input of an image in any form that `load_image` takes, or of stored tokens: an array [tokens, width],
    or the path or bytes of a .npy file.

    Raises:
      CocaError: it cannot be read, or has another shape or type.
    """
    if model.image.kind != "precomputed":
        return load_image(image, model.image.size)
    shape = input_shape(model)
    if isinstance(image, (str, os.PathLike, bytes)):
        name, data = read_file(image, "image")
        try:
            return decode_tokens(data, shape)
        except BadRecord as error:
            raise CocaError(f"{name} cannot be read as stored tokens ({error}): give a .npy file of {shape}") from error
    array = np.asarray(image)
    if array.shape != shape or array.dtype.kind != "f":
        raise CocaError(
            f"this model takes stored tokens, float {shape}, for an image, not a {type(image).__name__} of shape "
            f"{array.shape} and type {array.dtype}: encode the image first"
        )
    return array.astype(np.float32)


def decode_tokens(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a .npy file, float32 [tokens, width]; raises BadRecord if it has another shape or type, or is damaged."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
    except ValueError:
        raise BadRecord("not stored tokens (a .npy file)") from None
    try:
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        stored, column_major, dtype = header(file)
    except Exception as error:  # a header is a Python literal: crafted ones fail in many ways
        raise BadRecord("damaged .npy file") from error
    if stored != shape:
        raise BadRecord(f"stored tokens of shape {stored}, the model takes {shape}")
    if dtype.kind != "f" or dtype.itemsize not in (2, 4):
        raise BadRecord(f"stored tokens of type {dtype}, not float16 or float32")
    count = int(np.prod(shape))
    if len(data) - file.tell() < count * dtype.itemsize:
        raise BadRecord("damaged .npy file")
    values = np.frombuffer(data, dtype, count, file.tell())
    if not np.isfinite(values).all():
        raise BadRecord("stored tokens that are not finite")
    return values.reshape(shape, order="F" if column_major else "C").astype(np.float32)
