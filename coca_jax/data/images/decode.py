"""Pictures: decoding untrusted bytes, and the plain view of evaluation and inference. ICC profiles are ignored."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

MAX_PIXELS = 64 * 1024 * 1024  # of a picture before it is decoded
_WIDE = 4  # times the memory that a pixel of modes I and F takes while it becomes RGB
MAX_SCANS = 200  # of a progressive JPEG, each of which costs as much as the picture; encoders write ten
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_BICUBIC = Image.Resampling.BICUBIC
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, max_pixels: int = MAX_PIXELS, smallest: int = 0) -> Image.Image:
    """The picture as RGB, upright (EXIF), with transparency laid on white.

    Args:
      data: an encoded file: PNG, JPEG, WebP, GIF, BMP or TIFF (the first frame).
      max_pixels: a header that announces more is refused before anything is decoded; of wide greys (modes I and F), a
        quarter of it.
      smallest: a JPEG may come out at 1/2, 1/4 or 1/8 of its size, several times faster, as long as no side falls below
        this; 0: always whole.

    Raises:
      BadRecord: the bytes are no picture, a damaged one, or one too large.
      MemoryError: this machine has too little memory for it.
    """
    image = open_header(data, max_pixels)
    try:
        if smallest:
            image.draft(None, (smallest, smallest))
        return to_rgb(upright(image))
    except MemoryError:  # the machine's fault, not the record's: what a position gives must not depend on it
        raise
    except Exception as error:  # as in open_header
        raise BadRecord("damaged picture") from error


def open_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture with its header read and nothing decoded; arguments and errors as `decode`."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadRecord("too many pixels") from error
    except UnidentifiedImageError as error:
        raise BadRecord("not a picture") from error
    except Exception as error:  # Pillow's plugins let any of Python's errors escape on crafted files
        raise BadRecord("damaged picture") from error
    if image.width * image.height > max_pixels // (_WIDE if image.mode[0] in "IF" else 1):
        raise BadRecord("too many pixels")
    if image.format == "JPEG" and _scans(data, image) > MAX_SCANS:
        raise BadRecord("damaged picture")
    return image


def _scans(data: bytes, image: Image.Image) -> int:
    """How many scans a JPEG has, at most."""
    # Pillow has read the first scan's header, and nothing after it.
    begun, components = image.fp.tell(), len(image.layer)
    header = data[max(0, begun - 8 - 2 * components) : begun]
    if "progressive" not in image.info and header[:2] == b"\xff\xda" and header[4:5] == bytes([components]):
        return 1  # it holds the whole picture; the decoder reads no further
    # Within a scan's data every 0xFF is followed by 0, so that what is found there are markers.
    return data.count(b"\xff\xda")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or none that can be read."""
    if image.format in ("JPEG", "GIF", "BMP") and "exif" not in image.info:
        return 1  # the common case, without building an EXIF table
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not spoil the picture
        return 1
    return value if value in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of a picture in any mode: 16-bit greys scaled, palettes and CMYK converted, transparency laid on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion would clip these at 255
        values = np.array(image, np.float32)
        top = 65_535 if image.mode.startswith("I") else max(1.0, float(values.max(initial=0)))
        values *= 255 / top
        values += 0.5
        image = Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central square, resized with antialiased bicubic: uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return resized(image, size, (left, top, left + side, top + side))


def resized(
    image: Image.Image, size: int, box: tuple[float, float, float, float], kind: Image.Resampling = _BICUBIC
) -> np.ndarray:
    """A part of the picture (left, top, right, bottom), resized and antialiased: uint8 [size, size, 3]."""
    left, top, right, bottom = box  # float arithmetic may step over the edge by a rounding error
    box = (max(0.0, left), max(0.0, top), min(right, image.width), min(bottom, image.height))
    return np.asarray(image.resize((size, size), kind, box=box))


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
        return resize_and_crop(to_rgb(upright(thing)), size)
    return resize_and_crop(_from_array(np.asarray(thing)), size)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not shaped or (array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating)) or not array.size:
        raise CocaError(
            f"an array of shape {array.shape} and type {array.dtype} is not a picture: give uint8 or float "
            "[height, width, 3]"
        )
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also refuses NaN
            raise CocaError(f"a float picture has values from {low:g} to {high:g}: scale them to 0..1, or give uint8")
        array = np.clip(array * 255 + 0.5, 0, 255).astype(np.uint8)
    return to_rgb(Image.fromarray(array))
