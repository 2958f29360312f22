"""A faster way from a JPEG to a training image, if the packages of the extra `fast` are installed.

simplejpeg decodes with libjpeg-turbo, as Pillow does, without Pillow's copies and with the faster, less exact of its
arithmetics (one to two levels of 255 apart on average); OpenCV resizes with vector instructions. A file that simplejpeg
rejects is left to Pillow, which decides whether it is damaged.
"""

import numpy as np

from coca_jax.data.images import decode as images

try:
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)  # images are made side by side already
    AVAILABLE = True
except ImportError:
    AVAILABLE = False

# Markers of a JPEG: baseline and extended frames, a scan, and segments that change no pixel's place or colour: JFIF,
# ICC profiles and others but EXIF (1) and Adobe's (14), tables, restart intervals, comments.
_FRAMES, _SCAN = (0xC0, 0xC1), 0xDA
_IGNORED = {0xE0, *range(0xE2, 0xEE), 0xEF, 0xDB, 0xC4, 0xDD, 0xFE}


def decode_jpeg(data: bytes, smallest: int) -> np.ndarray | None:
    """The image as uint8 [height, width, 3]; None if it is not a plain upright JPEG, or a damaged one.

    `smallest` as in `decode.decode`, errors as those of `decode.open_header`.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    size = _plain_size(data)
    if size is None:
        header = images.open_header(data)
        if header.format != "JPEG" or header.mode not in ("RGB", "L") or images.turn(header) is not None:
            return None
        size = header.height, header.width
    # Vector instructions serve 1/2, 1/4 and 1/8 only: sizes between them take longer than the whole image.
    scale = next((scale for scale in (8, 4, 2) if min(size) >= scale * smallest), 1)
    height, width = (-(-side // scale) for side in size)
    try:
        return simplejpeg.decode_jpeg(
            data, min_height=height, min_width=width, fastdct=True, fastupsample=True, strict=True
        )
    except ValueError:
        return None


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of the usual kind of JPEG: one scan, no EXIF, no unusual colours, not too large; of others None.

    Pillow then reads the header; for every image this would cost a tenth of its decoding.
    """
    size, components, at = None, 0, 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == _SCAN:
            return size if data[at + 4] == components else None
        if kind in _FRAMES:
            size = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            components = data[at + 9]
            if size[0] * size[1] > images.MAX_PIXELS or components not in (1, 3):
                return None
        elif kind not in _IGNORED:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def resized(pixels: np.ndarray, size: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A resized part of the pixels [height, width, 3] (left, top, right, bottom): uint8 [size, size, 3].

    Two taps a side, which miss no pixel down to half the size; areas below that.
    """
    left, top, right, bottom = box
    kind = cv2.INTER_AREA if max(right - left, bottom - top) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(pixels[top:bottom, left:right], (size, size), interpolation=kind)
