"""A faster way from a JPEG to a training picture, where the packages of the extra `fast` are installed.

simplejpeg decodes with libjpeg-turbo, as Pillow does, without Pillow's copies; OpenCV resizes with vector instructions.
Whatever simplejpeg dislikes is left to Pillow, whose verdict counts.
"""

import numpy as np

from coca_jax.data import images

try:
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)  # pictures are made side by side already
except ImportError:
    cv2 = simplejpeg = None

AVAILABLE = cv2 is not None


def decode_jpeg(data: bytes, smallest: int) -> np.ndarray | None:
    """The picture as uint8 [height, width, 3]; None where it is not a plain upright JPEG, or a damaged one.

    Args:
      data: an encoded file.
      smallest: as in `images.decode`.

    Raises:
      BadRecord: as `images.open_header`.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    header = images.open_header(data)
    if header.format != "JPEG" or header.mode not in ("RGB", "L") or images.orientation(header) != 1:
        return None
    # Vector instructions serve 1/2, 1/4 and 1/8 only: sizes between them take longer than the whole picture.
    scale = next((scale for scale in (8, 4, 2) if min(header.size) >= scale * smallest), 1)
    height, width = (-(-side // scale) for side in (header.height, header.width))
    try:
        return simplejpeg.decode_jpeg(data, min_height=height, min_width=width, strict=True)
    except ValueError:
        return None


def resized(pixels: np.ndarray, size: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A part of the pixels [height, width, 3] (left, top, right, bottom): uint8 [size, size, 3].

    Two taps a side, which miss no pixel down to half the size; areas below that.
    """
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    kind = cv2.INTER_AREA if right - left > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(part, (size, size), interpolation=kind)
