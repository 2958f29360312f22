"""Perceptual hashes: 64 bits that stay nearly the same when a picture is re-encoded, resized, cropped a little.

A picture becomes a 64x64 thumbnail. Of a window of it, the 8x8 lowest frequencies of the cosine transform are compared
with their median: one bit each (pHash). Cutting the window, scaling it and transforming it are one matrix per axis, so
that the hashes of many windows cost little beside decoding.

Two pictures are near-duplicates where their hashes differ in few bits and their colours, means over a 4x4 grid, are
nearly the same: a hash knows no colour, and a blue heart is no copy of a green one.
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

SIDE = 64  # of a thumbnail
_SAMPLES = 32  # points of a window along each axis, before the transform
_BITS = 8  # frequencies along each axis
_GRID = 4  # cells of colour along each axis
# Of 255: mean differences of the cells' colours, and of these less their grey, that still are the same picture. Crops of
# a tenth of photographs stay below 13 and 6.
_COLOR_DISTANCE, _TINT_DISTANCE = 16.0, 7.0
_PLAIN = 3.0  # grey levels of standard deviation; less has no structure that a hash could tell
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Windows (left, top, side) as shares of the picture. A copy may be a crop of the evaluation's picture, or its source.
_CROPS = tuple(
    (left * (1 - side), top * (1 - side), side)
    for side in (0.95, 0.9, 0.84)
    for left, top in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))
)
WHOLE = ((0.0, 0.0, 1.0),)
CENTRES = WHOLE + _CROPS[::5]
EVERYWHERE = WHOLE + _CROPS


@dataclasses.dataclass(frozen=True)
class Hashes:
    """The hashes of n pictures in V variants each.

    Attributes:
      bits: uint64 [n, V].
      colors: uint8 [n, V, 4, 4, 3].
      plain: bool [n]: pictures without structure, which are compared with nothing.
    """

    bits: np.ndarray
    colors: np.ndarray
    plain: np.ndarray

    @classmethod
    def beside(cls, parts: list["Hashes"]) -> "Hashes":
        """More variants of the same pictures."""
        return cls(
            np.concatenate([part.bits for part in parts], axis=1),
            np.concatenate([part.colors for part in parts], axis=1),
            parts[0].plain,
        )

    @classmethod
    def together(cls, parts: list["Hashes"]) -> "Hashes":
        """More pictures of the same variants."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def thumbnails(image: Image.Image) -> np.ndarray:
    """The whole picture, squeezed into a square, and its central square, which data sets often keep: uint8 [2, 64, 64, 3]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    boxes = ((0, 0, *image.size), (left, top, left + side, top + side))
    return np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)) for box in boxes])


def of_evaluation(pictures: np.ndarray) -> Hashes:
    """Hashes of uint8 [n, 2, 64, 64, 3] that copies shall be found by: mirrored, and cropped anywhere."""
    return Hashes.beside([hashes(pictures[:, 0], EVERYWHERE, True), hashes(pictures[:, 1], WHOLE, True)])


def of_training(pictures: np.ndarray) -> Hashes:
    """The few hashes of uint8 [n, 2, 64, 64, 3] that are looked up: also the centre, where the other is the crop."""
    return Hashes.beside([hashes(pictures[:, 0], CENTRES), hashes(pictures[:, 1])])


def hashes(pictures: np.ndarray, windows: tuple = WHOLE, mirrored: bool = False) -> Hashes:
    """The hashes of thumbnails, uint8 [n, 64, 64, 3]: of every window, and of every window of their mirror images."""
    if mirrored:
        return Hashes.beside([hashes(pictures, windows), hashes(pictures[:, :, ::-1], windows)])
    pictures = pictures.astype(np.float32)
    grey = pictures @ _GREY
    bits, colors = [], []
    for left, top, side in windows:
        (across, means_x), (down, means_y) = _axis(left, side), _axis(top, side)
        frequencies = (down @ grey @ across.T).reshape(len(grey), -1)
        bits.append(frequencies > np.median(frequencies, axis=1, keepdims=True))
        rows = (means_y @ pictures.reshape(-1, SIDE, SIDE * 3)).reshape(-1, _GRID, SIDE, 3)
        colors.append(means_x @ rows)
    packed = np.packbits(np.stack(bits, axis=1), axis=-1).view(">u8")[..., 0].astype(np.uint64)
    cells = np.clip(np.stack(colors, axis=1) + 0.5, 0, 255).astype(np.uint8)
    return Hashes(packed, cells, grey.std(axis=(1, 2)) < _PLAIN)


def same_colors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether colours [..., 4, 4, 3] are nearly the same: bool [...]."""
    difference = a.astype(np.float32) - b.astype(np.float32)
    tint = difference - difference.mean(axis=-1, keepdims=True)
    return (np.abs(difference).mean(axis=(-1, -2, -3)) <= _COLOR_DISTANCE) & (
        np.abs(tint).mean(axis=(-1, -2, -3)) <= _TINT_DISTANCE
    )


@functools.cache
def _axis(start: float, side: float) -> tuple[np.ndarray, np.ndarray]:
    """From 64 pixels to the lowest frequencies of a window, float32 [8, 64], and to its means, float32 [4, 64]."""
    points = _averages(start, side, _SAMPLES)
    frequency, at = np.arange(_BITS)[:, None], np.arange(_SAMPLES)[None] + 0.5
    cosines = np.cos(np.pi * frequency * at / _SAMPLES)  # the scale of a frequency does not move its order much
    cosines[0] /= np.sqrt(2)
    return (cosines @ points).astype(np.float32), _averages(start, side, _GRID).astype(np.float32)


def _averages(start: float, side: float, cells: int) -> np.ndarray:
    """Each cell's mean over the pixels that it covers, partly covered ones by their part: [cells, 64]."""
    edges = (start + side * np.arange(cells + 1) / cells) * SIDE
    pixels = np.arange(SIDE)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    covered = np.clip(covered, 0, 1)
    return covered / covered.sum(axis=1, keepdims=True)
