"""Pictures: decoding untrusted bytes, resizing, augmenting. Stateless: all chance comes from the caller's generator."""

import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from coca_jax.errors import CocaError

MAX_PIXELS = 64 * 1024 * 1024  # of a picture before it is decoded
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# What Pillow raises on damaged files; zlib and struct errors escape from its plugins.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_BICUBIC = Image.Resampling.BICUBIC


class BadRecord(Exception):
    """A record that cannot be used; `cause` is a short phrase by which such records are counted."""

    def __init__(self, cause: str):
        super().__init__(cause)
        self.cause = cause


def decode(data: bytes, max_pixels: int = MAX_PIXELS, smallest: int = 0) -> Image.Image:
    """The picture as RGB, upright (EXIF), with transparency laid on white.

    Args:
      data: an encoded file: PNG, JPEG, WebP, GIF, BMP or TIFF (the first frame).
      max_pixels: a header that announces more is refused before anything is decoded.
      smallest: a JPEG may come out at 1/2, 1/4 or 1/8 of its size, several times faster, as long as no side falls below
        this; 0: always whole.

    Raises:
      BadRecord: the bytes are no picture, a damaged one, or one too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadRecord("too many pixels") from error
    except _DAMAGE as error:
        raise BadRecord("not a picture") from error
    if image.width * image.height > max_pixels:
        raise BadRecord("too many pixels")
    try:
        if smallest:
            image.draft(None, (smallest, smallest))
        return to_rgb(ImageOps.exif_transpose(image))
    except _DAMAGE as error:
        raise BadRecord("damaged picture") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of a picture in any mode: 16-bit greys scaled, palettes and CMYK converted, transparency laid on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion would clip these at 255
        values = np.asarray(image, np.float64)
        top = 65_535 if image.mode.startswith("I") else max(1.0, float(values.max(initial=0)))
        image = Image.fromarray(np.clip(values * (255 / top) + 0.5, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central square, resized with antialiased bicubic: uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return _resized(image, size, (left, top, left + side, top + side))


def augment(image: Image.Image, size: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A training view of the picture: uint8 [size, size, 3].

    Args:
      image: RGB.
      size: pixels a side.
      kind: "none": as in evaluation. "crop": a random square of 80 to 100 % of the shorter side. "drawing": for
        drawings on white: scaled, shifted and turned a little, colours jittered. Nothing is mirrored: captions
        speak of left and right.
      rng: the only source of chance.

    Raises:
      CocaError: there is no such kind.
    """
    if kind == "none":
        return resize_and_crop(image, size)
    if kind == "crop":
        side = min(image.size) * rng.uniform(0.8, 1.0)
        left, top = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
        return _resized(image, size, (left, top, left + side, top + side))
    if kind == "drawing":
        return _drawing(image, size, rng)
    raise CocaError(f"data.augment is {kind!r}: choose one of none, crop, drawing")


def _drawing(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    square = Image.fromarray(resize_and_crop(image, size))
    scale, angle = rng.uniform(0.8, 1.1), math.radians(rng.uniform(-12, 12))
    shift_x, shift_y = rng.uniform(-0.08, 0.08, 2) * size
    cos, sin, middle = math.cos(angle) / scale, math.sin(angle) / scale, size / 2
    coefficients = (
        cos, sin, middle - cos * (middle + shift_x) - sin * (middle + shift_y),
        -sin, cos, middle + sin * (middle + shift_x) - cos * (middle + shift_y),
    )
    moved = square.transform(
        (size, size), Image.Transform.AFFINE, coefficients, _BICUBIC, fillcolor=(255, 255, 255)
    )
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.93, 1.07, 3)
    # Jitter the distance from white, so that the paper stays white.
    ink = (255 - np.asarray(moved, np.float32)) * gain.astype(np.float32)
    return np.clip(255.5 - ink, 0, 255).astype(np.uint8)


def _resized(image: Image.Image, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    left, top, right, bottom = box  # float arithmetic may step over the edge by a rounding error
    box = (max(0.0, left), max(0.0, top), min(right, image.width), min(bottom, image.height))
    return np.asarray(image.resize((size, size), _BICUBIC, box=box))


def load_image(thing: Any, size: int) -> np.ndarray:
    """A picture as the model takes it, uint8 [size, size, 3].

    Args:
      thing: a PIL image, a path, or an array: uint8 (0..255) or float (0..1), [H, W] or [H, W, 1, 3 or 4].
      size: pixels a side.

    Raises:
      CocaError: the path cannot be read, or the thing is not a picture.
    """
    if isinstance(thing, (str, os.PathLike)):
        try:
            return resize_and_crop(decode(Path(thing).read_bytes()), size)
        except OSError as error:
            raise CocaError(f"the picture {thing} cannot be read ({error.strerror}): check the path") from error
        except BadRecord as error:
            raise CocaError(f"{thing} cannot be read as a picture ({error}): give a PNG, JPEG or WebP file") from error
    if isinstance(thing, Image.Image):
        return resize_and_crop(to_rgb(ImageOps.exif_transpose(thing)), size)
    return resize_and_crop(_from_array(np.asarray(thing)), size)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shaped = array.ndim == 2 or array.ndim == 3 and array.shape[2] in (3, 4)
    if not shaped or array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating) or not array.size:
        raise CocaError(f"an array of shape {array.shape} and type {array.dtype} is not a picture: give uint8 or float "
                        "[height, width, 3]")
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also refuses NaN
            raise CocaError(f"a float picture has values from {low:g} to {high:g}: scale them to 0..1, or give uint8")
        array = np.clip(array * 255 + 0.5, 0, 255).astype(np.uint8)
    return to_rgb(Image.fromarray(array))
