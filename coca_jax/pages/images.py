"""Images as data: URIs, so that a page needs no other file."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

_PIXELATED_UP_TO = 64  # pixels a side: the browser enlarges small images without smoothing
_LARGEST = 224  # pixels a side that a card can show
_LOSSLESS_BYTES = 16_000  # photographs exceed it as PNG and become JPEG


@dataclasses.dataclass(frozen=True)
class DataImage:
    """An encoded image and the size in pixels at which a page shows it."""

    uri: str
    width: int
    height: int
    pixelated: bool


def thumbnail(image: np.ndarray) -> DataImage:
    """An image, uint8 [H, W, 3] (or [H, W, 1]), shrunk to the size of a card."""
    source = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixelated = max(source.size) <= _PIXELATED_UP_TO
    source.thumbnail((_LARGEST, _LARGEST))
    uri = _data_uri(source, "PNG", optimize=True)
    if len(uri) > _LOSSLESS_BYTES * 4 / 3:  # base64
        uri = _data_uri(source, "JPEG", quality=85)
    return DataImage(uri, *source.size, pixelated)


def exact(image: np.ndarray, scale: int = 1) -> DataImage:
    """An image, uint8 [H, W, 3], unchanged, each pixel shown as a square of `scale` pixels."""
    height, width = image.shape[:2]
    return DataImage(_data_uri(Image.fromarray(image), "PNG"), width * scale, height * scale, scale > 1)


def _data_uri(image: Image.Image, kind: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
