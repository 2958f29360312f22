"""From a record's bytes to the model's pixels, in one call. Stateless: all chance comes from the caller's generator."""

import math

import numpy as np
from PIL import Image

from coca_jax.config import AugmentationConfig, DatasetConfig
from coca_jax.data.images import decode as images
from coca_jax.data.images import fast_jpeg as fast_images
from coca_jax.data.images import randaugment, video

_NO_AUGMENTATION = AugmentationConfig()
_SHARE = 0.8  # of the shorter side, the smallest crop
_WHITE = (255, 255, 255)
# Part of a run's fingerprint: the two ways of resizing differ by rounding and more.
BACKEND = "fast" if fast_images.AVAILABLE else "pillow"


def view(
    data: bytes,
    size: int,
    dataset: DatasetConfig,
    rng: np.random.Generator | None,
    augmentation: AugmentationConfig = _NO_AUGMENTATION,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """What the model sees of an image or clip: uint8 [size, size, 3]; if dataset.frames > 0, [frames, size, size, 3].

    In training: the crop or warp that augmentation.crop names ("none": the central square; "random": a random square of
    80 to 100 % of the shorter side; "drawing": for drawings on white, scaled, shifted and turned a little, colours
    jittered), then the mirror, then RandAugment. All frames of a clip meet the same chance.

    Args:
      data: an encoded picture, of which a clip may take the place: then one frame counts, drawn at random, in
        evaluation the middle one. Where dataset.frames > 0, a picture is a clip that stands still.
      size: pixels a side.
      dataset: the dataset of the record.
      rng: the only source of chance; None is the evaluation's view, the central square without augmentation.
      augmentation: of a training view.
      out: where it is written and what is returned then, contiguous; by default a new array.

    Raises:
      BadRecord: the bytes cannot be used.
    """
    if video.is_clip(data) or (dataset.frames and video.is_gif(data)):
        pixels = _clip(data, size, dataset, augmentation, rng)
    elif rng is None:
        pixels = images.resize_and_crop(_inside(images.decode(data), dataset), size)
    else:
        pixels = _trained(_decoded(data, size, augmentation), size, augmentation, rng, None if dataset.frames else out)
    if out is None:
        return np.repeat(pixels[None], dataset.frames, axis=0) if dataset.frames and pixels.ndim == 3 else pixels
    if pixels is not out:
        out[...] = pixels  # a picture that stands still fills all frames
    return out


def _clip(
    data: bytes,
    size: int,
    dataset: DatasetConfig,
    augmentation: AugmentationConfig,
    rng: np.random.Generator | None,
) -> np.ndarray:
    stack = video.frames(data, dataset.frames or 1, rng, smallest=_smallest(size))
    pictures = [Image.fromarray(frame) for frame in stack]
    if rng is None:
        pixels = [images.resize_and_crop(picture, size) for picture in pictures]
    else:
        seed = int(rng.integers(2**63))
        pixels = [_trained(picture, size, augmentation, np.random.default_rng(seed)) for picture in pictures]
    return np.stack(pixels) if dataset.frames else pixels[0]


def _inside(picture: Image.Image, dataset: DatasetConfig) -> Image.Image:
    """A held-out picture without the border that its set says it has."""
    border, (width, height) = dataset.crop_border, picture.size
    if not border or min(width, height) <= 2 * border:
        return picture
    return picture.crop((border, border, width - border, height - border))


def _smallest(size: int) -> int:
    return math.ceil(size / _SHARE)  # no crop of this has to be enlarged


def _decoded(data: bytes, size: int, augmentation: AugmentationConfig) -> np.ndarray | Image.Image:
    if fast_images.AVAILABLE and augmentation.crop != "drawing":
        pixels = fast_images.decode_jpeg(data, _smallest(size))
        if pixels is not None:
            return pixels
    return images.decode(data, smallest=_smallest(size))


def _trained(
    picture: np.ndarray | Image.Image,
    size: int,
    augmentation: AugmentationConfig,
    rng: np.random.Generator,
    out: np.ndarray | None = None,
) -> np.ndarray:
    if augmentation.crop == "drawing":
        pixels = _drawing(picture, size, rng)
    else:
        pixels = _crop(picture, size, rng if augmentation.crop == "random" else None, out)
    if augmentation.mirror and rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    if augmentation.randaugment_layers:
        pixels = randaugment.randaugment(
            pixels, augmentation.randaugment_layers, augmentation.randaugment_magnitude, rng
        )
    return pixels


def _crop(
    picture: np.ndarray | Image.Image, size: int, rng: np.random.Generator | None, out: np.ndarray | None
) -> np.ndarray:
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    across, down, chance = (0.5, 0.5, 1.0) if rng is None else rng.random(3).tolist()
    side = max(1, round(min(width, height) * (_SHARE + (1.0 - _SHARE) * chance)))
    left, top = round((width - side) * across), round((height - side) * down)
    box = left, top, left + side, top + side
    if fast_images.AVAILABLE:
        return fast_images.resized(np.asarray(picture), size, box, out)
    return images.resized(picture, size, box, Image.Resampling.HAMMING)  # near bicubic, at two thirds of its time


def _drawing(picture: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    square = Image.fromarray(images.resize_and_crop(picture, size))
    scale, angle = rng.uniform(0.8, 1.1), math.radians(rng.uniform(-12, 12))
    shift_x, shift_y = rng.uniform(-0.08, 0.08, 2) * size
    cos, sin, middle = math.cos(angle) / scale, math.sin(angle) / scale, size / 2
    coefficients = (
        cos,
        sin,
        middle - cos * (middle + shift_x) - sin * (middle + shift_y),
        -sin,
        cos,
        middle + sin * (middle + shift_x) - cos * (middle + shift_y),
    )
    affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    moved = square.transform((size, size), affine, coefficients, bicubic, fillcolor=_WHITE)
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.93, 1.07, 3)
    # Jitter the distance from white, so that the paper stays white.
    ink = (255 - np.asarray(moved, np.float32)) * gain.astype(np.float32)
    return np.clip(255.5 - ink, 0, 255).astype(np.uint8)
