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
    image, operations = Image.fromarray(pixels), list(OPERATIONS.values())
    for number in rng.integers(len(OPERATIONS), size=layers).tolist():
        sign = 1.0 if rng.random() < 0.5 else -1.0
        image = operations[number](image, magnitude / 10, sign)
    return np.asarray(image)


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=_GREY)


def _enhance(kind: type) -> Callable[[Image.Image, float, float], Image.Image]:
    return lambda image, level, sign: kind(image).enhance(0.1 + 1.8 * level)


def _pixels(side: int, level: float) -> int:
    return math.floor(level * side * 100 / 224)


# By name, of (image, level, sign): the level is magnitude / 10, the sign 1 or -1. Draws depend on the order.
OPERATIONS: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "identity": lambda image, level, sign: image,
    "auto_contrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "rotate": lambda image, level, sign: image.rotate(sign * 30 * level, fillcolor=_GREY),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, int(256 * level)),
    "posterize": lambda image, level, sign: ImageOps.posterize(image, min(8, max(1, int(4 * level)))),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, level, sign: _affine(image, 1, sign * 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda image, level, sign: _affine(image, 1, 0, 0, sign * 0.3 * level, 1, 0),
    "translate_x": lambda image, level, sign: _affine(image, 1, 0, sign * _pixels(image.width, level), 0, 1, 0),
    "translate_y": lambda image, level, sign: _affine(image, 1, 0, 0, 0, 1, sign * _pixels(image.height, level)),
}
