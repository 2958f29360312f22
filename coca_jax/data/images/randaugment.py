"""RandAugment (arXiv 1909.13719): a few operations drawn at random, all of one magnitude.

The paper's 14 operations, with the strengths of Google's TensorFlow code (`tensorflow/tpu`, autoaugment.py of its
EfficientNet): magnitude 10 is what AutoAugment called the maximum, and the usual 5 to 30 go past it. torchvision's 0 to
30 means other strengths: its 30 is about this 10. Kept from Google's code: factors of colour, contrast, brightness and
sharpness go from 0.1 through 1 (magnitude 5) upwards; posterise and solarise grow weaker as the magnitude grows, until
they do nothing. Changed: a translation is a share of the side (100 pixels of 224), so that small images keep some
content, and posterise keeps at least one bit.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_GREY = (128, 128, 128)  # of pixels that move in from beyond the edge


def randaugment(pixels: np.ndarray, layers: int, magnitude: float, rng: np.random.Generator) -> np.ndarray:
    """Pixels, uint8 [size, size, 3], after `layers` operations of a magnitude (0 to 30) drawn with replacement."""
    image = Image.fromarray(pixels)
    for number in rng.integers(len(OPERATIONS), size=layers).tolist():
        sign = 1.0 if rng.random() < 0.5 else -1.0
        image = OPERATIONS[number](image, magnitude / 10, sign)
    return np.asarray(image)


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=_GREY)


def _identity(image: Image.Image, level: float, sign: float) -> Image.Image:
    return image


def _auto_contrast(image: Image.Image, level: float, sign: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, level: float, sign: float) -> Image.Image:
    return ImageOps.equalize(image)


def _rotate(image: Image.Image, level: float, sign: float) -> Image.Image:
    return image.rotate(sign * 30 * level, fillcolor=_GREY)


def _solarize(image: Image.Image, level: float, sign: float) -> Image.Image:
    return ImageOps.solarize(image, int(256 * level))


def _posterize(image: Image.Image, level: float, sign: float) -> Image.Image:
    return ImageOps.posterize(image, min(8, max(1, int(4 * level))))


def _enhance(kind: type) -> Callable[[Image.Image, float, float], Image.Image]:
    return lambda image, level, sign: kind(image).enhance(0.1 + 1.8 * level)


def _shear_x(image: Image.Image, level: float, sign: float) -> Image.Image:
    return _affine(image, 1, sign * 0.3 * level, 0, 0, 1, 0)


def _shear_y(image: Image.Image, level: float, sign: float) -> Image.Image:
    return _affine(image, 1, 0, 0, sign * 0.3 * level, 1, 0)


def _translate_x(image: Image.Image, level: float, sign: float) -> Image.Image:
    return _affine(image, 1, 0, sign * math.floor(level * image.width * 100 / 224), 0, 1, 0)


def _translate_y(image: Image.Image, level: float, sign: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, sign * math.floor(level * image.height * 100 / 224))


OPERATIONS: tuple[Callable[[Image.Image, float, float], Image.Image], ...] = (
    _identity,
    _auto_contrast,
    _equalize,
    _rotate,
    _solarize,
    _posterize,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
