"""Pictures as data: URIs, so that a page needs no other file."""

import base64
import html
import io

import numpy as np
from PIL import Image

_PIXELATED_UP_TO = 64  # pixels a side: small pictures are scaled up by the browser, square pixels and all
_LARGEST = 224  # pixels a side; what a card can show
_LOSSLESS_BYTES = 16_000  # photographs exceed it as PNG and become JPEG


def picture(image: np.ndarray, alt: str) -> str:
    """An `<img>` of a picture, uint8 [H, W, 3] (or [H, W, 1]), shrunk to what a card can show."""
    source = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small = max(source.size) <= _PIXELATED_UP_TO
    source.thumbnail((_LARGEST, _LARGEST))
    kind, data = "png", _encoded(source, "PNG", optimize=True)
    if len(data) > _LOSSLESS_BYTES:
        kind, data = "jpeg", _encoded(source, "JPEG", quality=85)
    style = ' class="pixelated"' if small else ""
    width, height = source.size
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img{style} width="{width}" height="{height}" alt="{html.escape(alt, quote=True)}" src="{uri}">'


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
