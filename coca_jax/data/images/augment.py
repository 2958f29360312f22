"""From a record's bytes to the model's pixels, in one call. Stateless: all chance comes from the caller's generator."""

import math

import numpy as np
from PIL import Image

from coca_jax.config import AugmentationConfig, DatasetConfig
from coca_jax.data.images import decode as images
from coca_jax.data.images import fast_jpeg, randaugment, video
from coca_jax.errors import CocaError

_NO_AUGMENTATION = AugmentationConfig()
_WHITE = (255, 255, 255)
_ASPECT = 4 / 3  # of the widest and the highest part of crop = resized
# Part of a run's fingerprint: the two ways of resizing differ by rounding and more.
BACKEND = "fast" if fast_jpeg.AVAILABLE else "pillow"


def view(
    data: bytes,
    size: int,
    dataset: DatasetConfig,
    rng: np.random.Generator | None,
    augmentation: AugmentationConfig = _NO_AUGMENTATION,
) -> np.ndarray:
    """The pixels of an image or clip: uint8 [size, size, 3]; if dataset.frames > 0 [frames, size, size, 3].

    In training: the crop or warp that augmentation.crop names ("none": the central square; "random": a random square of
    80 to 100 % of the shorter side; "resized": a part of `crop_area` to all of the image, 3:4 to 4:3, stretched to the
    square (Inception, arXiv 1409.4842 §6); "drawing": for drawings on white, scaled, shifted and turned a little, colours
    jittered), then the mirror, then RandAugment. All frames of a clip are augmented alike.

    Args:
      data: an encoded image, or a clip in its place, which gives one frame: drawn at random, in evaluation the middle
        one. If dataset.frames > 0, an image is a clip that stands still.
      size: pixels a side.
      dataset: the record's.
      rng: the only source of chance; None: the evaluation's view, the central square without augmentation.
      augmentation: of a training view.

    Raises:
      BadRecord: the bytes cannot be used.
      CocaError: dataset.frames asks for clips, and PyAV is not installed.
    """
    _check_clips(dataset)
    if video.is_clip(data) or (dataset.frames and video.is_gif(data)):
        return _clip(data, size, dataset.frames, rng, augmentation)
    if rng is None:
        pixels = images.resize_and_crop(_without_border(images.decode(data), dataset.crop_border), size)
    else:
        pixels = _augmented(_decoded(data, size, augmentation), size, rng, augmentation)
    return np.repeat(pixels[None], dataset.frames, axis=0) if dataset.frames else pixels


def _check_clips(dataset: DatasetConfig) -> None:
    if dataset.frames and not video.AVAILABLE:
        raise CocaError(f"{dataset.path} is read as clips of {dataset.frames} frames; {video.NEEDS_PYAV}")


def evaluation_views(data: bytes, size: int, dataset: DatasetConfig) -> np.ndarray:
    """The views of a held-out image or clip, uint8 [views, size, size, 3] or, if dataset.frames > 0, [views, frames, size,
    size, 3]: squares, evenly spread over the longer side, of each set of frames; errors as `view`."""
    _check_clips(dataset)
    clips, crops = dataset.evaluation_clips, dataset.evaluation_crops
    if video.is_clip(data) or (dataset.frames and video.is_gif(data)):
        several = video.decode_views(data, size, dataset.frames or 1, clips, crops)
        return several if dataset.frames else several[:, 0]
    image = _without_border(images.decode(data), dataset.crop_border)
    squares = np.stack([images.resized(image, size, box) for box in images.squares(*image.size, crops)])
    return np.tile(squares[:, None], (clips, dataset.frames, 1, 1, 1)) if dataset.frames else squares


def _clip(
    data: bytes, size: int, frames: int, rng: np.random.Generator | None, augmentation: AugmentationConfig
) -> np.ndarray:
    if rng is None:
        pixels = video.decode_clip(data, size, frames or 1)
    else:
        stack = video.frames(data, frames or 1, rng, smallest=_least_side(size, augmentation))
        seed = int(rng.integers(2**63))
        pixels = np.stack(
            [_augmented(Image.fromarray(one), size, np.random.default_rng(seed), augmentation) for one in stack]
        )
    return pixels if frames else pixels[0]


def _without_border(image: Image.Image, border: int) -> Image.Image:
    width, height = image.size
    if not border or min(width, height) <= 2 * border:
        return image
    return image.crop((border, border, width - border, height - border))


def _decoded(data: bytes, size: int, augmentation: AugmentationConfig) -> np.ndarray | Image.Image:
    smallest = _least_side(size, augmentation)
    if fast_jpeg.AVAILABLE and augmentation.crop != "drawing":
        pixels = fast_jpeg.decode_jpeg(data, smallest)
        if pixels is not None:
            return pixels
    return images.decode(data, smallest=smallest)


def _least_side(size: int, augmentation: AugmentationConfig) -> int:
    """The shorter side of an image of which no crop has to be enlarged."""
    if augmentation.crop != "resized":
        return images.least_side(size)
    return math.ceil(size / math.sqrt(augmentation.crop_area / _ASPECT))


def _augmented(
    image: np.ndarray | Image.Image, size: int, rng: np.random.Generator, augmentation: AugmentationConfig
) -> np.ndarray:
    if isinstance(image, Image.Image) and augmentation.crop == "drawing":
        pixels = _drawing(image, size, rng)
    else:
        width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
        if augmentation.crop == "resized":
            box = _part(width, height, augmentation.crop_area, rng)
        else:
            box = _square(width, height, rng if augmentation.crop == "random" else None)
        pixels = _resized(image, size, box)
    if augmentation.mirror and rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    layers = augmentation.randaugment_layers
    return randaugment.randaugment(pixels, layers, augmentation.randaugment_magnitude, rng) if layers else pixels


_Box = tuple[int, int, int, int]  # left, top, right, bottom


def _square(width: int, height: int, rng: np.random.Generator | None) -> _Box:
    across, down, chance = (0.5, 0.5, 1.0) if rng is None else rng.random(3).tolist()
    side = max(1, round(min(width, height) * (images.LEAST_CROP + (1.0 - images.LEAST_CROP) * chance)))
    left, top = round((width - side) * across), round((height - side) * down)
    return left, top, left + side, top + side


def _part(width: int, height: int, least_area: float, rng: np.random.Generator) -> _Box:
    """A random part of the image; a side that would exceed the image is cut to it."""
    across, down = rng.random(2).tolist()
    area, aspect = width * height * rng.uniform(least_area, 1.0), _ASPECT ** rng.uniform(-1, 1)
    wide, high = (min(max(1, round(math.sqrt(area * x))), side) for x, side in ((aspect, width), (1 / aspect, height)))
    left, top = round((width - wide) * across), round((height - high) * down)
    return left, top, left + wide, top + high


def _resized(image: np.ndarray | Image.Image, size: int, box: _Box) -> np.ndarray:
    if fast_jpeg.AVAILABLE or not isinstance(image, Image.Image):
        return fast_jpeg.resized(np.asarray(image), size, box)
    return images.resized(image, size, box, Image.Resampling.HAMMING)  # near bicubic, at two thirds of its time


def _drawing(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    square = Image.fromarray(images.resize_and_crop(image, size))
    scale, angle = rng.uniform(0.8, 1.1), math.radians(rng.uniform(-12, 12))
    shift_x, shift_y = rng.uniform(-0.08, 0.08, 2) * size
    cos, sin, middle = math.cos(angle) / scale, math.sin(angle) / scale, size / 2
    left = middle - cos * (middle + shift_x) - sin * (middle + shift_y)
    top = middle + sin * (middle + shift_x) - cos * (middle + shift_y)
    coefficients = (cos, sin, left, -sin, cos, top)
    affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    moved = square.transform((size, size), affine, coefficients, bicubic, fillcolor=_WHITE)
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.93, 1.07, 3)
    # Jitter the distance from white, so that the paper stays white.
    ink = (255 - np.asarray(moved, np.float32)) * gain.astype(np.float32)
    return np.clip(255.5 - ink, 0, 255).astype(np.uint8)
