"""Images: decoding untrusted bytes, and the plain view of evaluation and inference. ICC profiles are ignored."""

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

MAX_PIXELS = 64 * 1024 * 1024  # that a header may announce; of wide greys (modes I and F) a quarter
LEAST_CROP = 0.8  # side of the smallest training crop, of the shorter side
_WIDE = 4  # times the memory that a pixel of modes I and F takes while it becomes RGB
MAX_SCANS = 200  # of a progressive JPEG, each of which costs as much as the image; encoders write ten
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))
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
# Brands of images in the container that mp4 and mov use too (ISO/IEC 14496-12), and how other files begin.
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_IMAGE_BRANDS = _AVIF | _HEIC | {b"mif1", b"mif2", b"msf1", b"miaf"}
_BEGINNINGS = {b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000"}


def decode(data: bytes, smallest: int = 0) -> Image.Image:
    """The image as RGB, upright (EXIF), with transparency laid on white.

    Of PNG, JPEG, WebP, GIF, BMP, TIFF (the first frame) or, where Pillow supports it, AVIF. A JPEG may come out at 1/2,
    1/4 or 1/8 of its size, several times faster, while no side falls below `smallest`.

    Raises:
      BadRecord: the bytes are not an image, a damaged one, one too large, or of a format that is not supported.
      MemoryError: this machine has too little memory for it.
    """
    image = open_header(data)
    try:
        if smallest:
            image.draft(None, (smallest, smallest))
        return to_rgb(upright(image))
    except MemoryError:  # the machine's fault, not the record's: a position's example must not depend on it
        raise
    except Exception as error:  # as in open_header
        raise BadRecord("damaged image") from error


def open_header(data: bytes) -> Image.Image:
    """The image with its header read and nothing decoded; errors as `decode`."""
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadRecord("too many pixels") from error
    except UnidentifiedImageError as error:
        raise BadRecord(_cause(data) or "not an image") from error
    except Exception as error:  # Pillow's plugins let any of Python's errors escape on crafted files
        raise BadRecord(_cause(data) or "damaged image") from error
    if image.width * image.height > MAX_PIXELS // (_WIDE if image.mode[0] in "IF" else 1):
        raise BadRecord("too many pixels")
    if isinstance(image, JpegImageFile) and image.format == "JPEG" and _scans(data, image) > MAX_SCANS:
        raise BadRecord("damaged image")
    return image


def is_image_container(data: bytes) -> bool:
    """Whether the bytes begin as AVIF or HEIC do, whose first bytes are otherwise those of an mp4."""
    return data[4:8] == b"ftyp" and data[8:12] in _IMAGE_BRANDS


def _cause(data: bytes) -> str:
    """The cause by which an image of a known format that Pillow did not recognise is counted; "" for other bytes."""
    name = _BEGINNINGS.get(data[:8], "")
    if is_image_container(data):
        end = min(int.from_bytes(data[:4]), 256)
        brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
        name = "AVIF" if brands & _AVIF else "HEIC"
    if name in _FORMATS:
        return "damaged image"
    return f"{name} image (not supported)" if name else ""


def _scans(data: bytes, image: JpegImageFile) -> int:
    """The number of scans of a JPEG, at most."""
    # Pillow has read the first scan's header, and nothing after it.
    begun, components = image.fp.tell() if image.fp else 0, len(image.layer)
    header = data[max(0, begun - 8 - 2 * components) : begun]
    if "progressive" not in image.info and header[:2] == b"\xff\xda" and header[4:5] == bytes([components]):
        return 1  # it holds the whole image; the decoder reads no further
    # Within a scan's data every 0xFF is followed by 0, so any match is a marker.
    return data.count(b"\xff\xda")


def turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn the image upright, by its EXIF orientation; None if it is upright or that cannot be read."""
    if image.format in ("JPEG", "GIF", "BMP") and "exif" not in image.info:
        return None  # the common case, without building an EXIF table
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not spoil the image
        return None


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    needed = turn(image)
    return image if needed is None else image.transpose(needed)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of an image in any mode: 16-bit greys scaled, palettes and CMYK converted, transparency laid on white."""
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


def least_side(size: int) -> int:
    """The shorter side of an image of which no training crop has to be enlarged."""
    return math.ceil(size / LEAST_CROP)


def resize_and_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central square, resized with antialiased bicubic: uint8 [size, size, 3]."""
    (box,) = squares(*image.size, 1)
    return resized(image, size, box)


def resized(
    image: Image.Image, size: int, box: tuple[float, float, float, float], kind: Image.Resampling = _BICUBIC
) -> np.ndarray:
    """A part of the image (left, top, right, bottom), resized and antialiased: uint8 [size, size, 3]."""
    left, top, right, bottom = box  # float arithmetic may step over the edge by a rounding error
    box = (max(0.0, left), max(0.0, top), min(right, image.width), min(bottom, image.height))
    return np.asarray(image.resize((size, size), kind, box=box))


def squares(width: int, height: int, count: int) -> list[tuple[float, float, float, float]]:
    """The boxes (left, top, right, bottom) of `count` squares, evenly spread over the longer side; of one the centre."""
    side, spare = min(width, height), abs(width - height)
    starts = [spare / 2] if count == 1 else np.linspace(0, spare, count).tolist()
    return [(start, 0, start + side, side) if width > height else (0, start, side, start + side) for start in starts]


def load_image(image: Any, size: int) -> np.ndarray:
    """An image as the model takes it: uint8 [size, size, 3].

    It may be a PIL image, a path, a file's bytes, or an array [H, W] or [H, W, 1, 3 or 4]: uint8, or float from 0 to 1.
    Raises CocaError if it is none of these, cannot be read, or is damaged.
    """
    if isinstance(image, (str, os.PathLike, bytes)):
        name, data = read_file(image, "image")
        try:
            return resize_and_crop(decode(data), size)
        except BadRecord as error:
            raise CocaError(f"{name} cannot be read as an image ({error}): give a PNG, JPEG or WebP file") from error
    if not isinstance(image, Image.Image):
        return resize_and_crop(_from_array(image), size)
    try:
        return resize_and_crop(to_rgb(upright(image)), size)
    except MemoryError:
        raise
    except Exception as error:  # PIL decodes when the pixels are needed: any of its plugins' errors
        name = getattr(image, "filename", "") or "given"
        raise CocaError(f"the PIL image {name} cannot be decoded ({error}): leave it out or replace it") from error


def read_file(file: str | os.PathLike | bytes, kind: str) -> tuple[str, bytes]:
    """The name, for messages, and the bytes of a file, an "image" or a "clip"; CocaError if it cannot be read."""
    if isinstance(file, bytes):
        return f"the {kind}", file
    try:
        return str(file), Path(file).expanduser().read_bytes()
    except OSError as error:
        raise CocaError(f"the {kind} {file} cannot be read ({error.strerror}): check the path") from error


def _from_array(image: Any) -> Image.Image:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError):  # lists of unequal lengths
        array = np.empty((), object)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not shaped or not array.size or (array.dtype != np.uint8 and array.dtype.kind != "f"):
        what = f"a {type(image).__name__} of shape {array.shape} and type {array.dtype}"
        forms = "a PIL image, a path, an image file's bytes, or an array [height, width, 3] of uint8 or float"
        raise CocaError(f"{what} is not an image: give {forms}")
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also refuses NaN
            raise CocaError(f"a float image has values from {low:g} to {high:g}: scale them to 0..1, or give uint8")
        array = np.clip(array * 255 + 0.5, 0, 255).astype(np.uint8)
    return to_rgb(Image.fromarray(array))
