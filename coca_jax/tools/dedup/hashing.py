"""Perceptual hashes: 64 bits that change little when an image is re-encoded, resized, or cropped a little (pHash).

Of a window of the image, the 8x8 lowest frequencies of the cosine transform are compared with their median: one bit
each. Two images are near-duplicates if hashes of theirs differ in few bits and the mean colours of a 4x4 grid are nearly
the same: a hash ignores colour, and a blue heart is no copy of a green one.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from PIL import Image

SIDE = 64  # of the thumbnail that windows are cut from
_SAMPLES = 32  # along each axis of a window, before the transform
_BITS = 8  # frequencies along each axis
_GRID = 4  # cells of colour along each axis
# Of 255: mean differences of the cells' colours, and of these less their grey, that still are the same image. Crops of
# a tenth of photographs stay below 13 and 6.
_COLOR_DISTANCE, _TINT_DISTANCE = 16.0, 7.0
_PLAIN = 3.0  # grey levels of standard deviation; an image with less has no structure to compare
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Windows (left, top, side) as shares of the image. A copy may be a crop of the evaluation's image, or its source.
_WHOLE = ((0.0, 0.0, 1.0),)
_CROPS = tuple(
    (left * (1 - side), top * (1 - side), side)
    for side in (0.95, 0.9, 0.84)
    for left, top in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))
)
_CENTRES = _CROPS[::5]


class Hashes(NamedTuple):
    """The hashes of an image in V variants, uint64 [V], and the mean colours of their cells, uint8 [V, 4, 4, 3].

    An image without structure has none, and is compared with nothing.
    """

    bits: np.ndarray
    colors: np.ndarray


def evaluation_hashes(image: Image.Image) -> Hashes:
    """The hashes of an RGB image by which its copies are found: mirrored, and cropped anywhere."""
    samples = _samples(image, _WHOLE + _CROPS)
    return _hashes(np.concatenate([samples, samples[:, :, ::-1]]))


def training_hashes(image: Image.Image) -> Hashes:
    """The few hashes of an RGB image that are looked up; those of its centre find evaluation images that are crops."""
    return _hashes(_samples(image, _WHOLE + _CENTRES))


def _samples(image: Image.Image, windows: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """The windows of the image squeezed into a square, and its central square: uint8 [windows + 1, 32, 32, 3]."""
    whole, size = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), (_SAMPLES, _SAMPLES)
    samples = []
    for left, top, side in windows:
        box = (SIDE * left, SIDE * top, SIDE * (left + side), SIDE * (top + side))
        samples.append(whole.resize(size, Image.Resampling.BILINEAR, box))
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    samples.append(image.resize(size, Image.Resampling.BILINEAR, (left, top, left + shorter, top + shorter)))
    return np.stack([np.asarray(sample) for sample in samples])


def _hashes(samples: np.ndarray) -> Hashes:
    grey = samples @ _GREY
    used = slice(0 if grey[0].std() < _PLAIN else None)
    frequencies = scipy.fft.dctn(grey, axes=(1, 2), norm="ortho")[:, :_BITS, :_BITS].reshape(len(samples), -1)
    bits = np.packbits(frequencies > np.median(frequencies, axis=1, keepdims=True), axis=1).view(np.uint64)[:, 0]
    cell = _SAMPLES // _GRID
    means = samples.reshape(-1, _GRID, cell, _GRID, cell, 3).mean(axis=(2, 4))
    return Hashes(bits[used], np.round(means).astype(np.uint8)[used])


def same_colors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether colours [..., 4, 4, 3] are nearly the same: bool [...]."""
    difference = a.astype(np.float32) - b.astype(np.float32)
    tint = difference - difference.mean(axis=-1, keepdims=True)
    near = np.abs(difference).mean(axis=(-1, -2, -3)) <= _COLOR_DISTANCE
    return near & (np.abs(tint).mean(axis=(-1, -2, -3)) <= _TINT_DISTANCE)
