"""Handwriting on a canvas: strokes under a warp, their arrangement in a layout, backgrounds and painting."""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from coca_jax.data.digit_scenes.language import Meaning

Pick = Callable[[Sequence[Any]], Any]  # one of some options, at random
Draw = Callable[[], float]  # a random number from -1 to 1

RGB = dict(
    red=(222, 26, 26),
    orange=(255, 138, 0),
    yellow=(255, 226, 20),
    green=(16, 150, 50),
    cyan=(0, 205, 225),
    blue=(44, 74, 250),
    purple=(148, 36, 190),
    pink=(255, 112, 190),
)
HEIGHT = dict(small=9.5, large=14.5)  # of the writing, in pixels of a 40-pixel canvas
# Training writing is warped, so that 1,497 digits stand for the world's handwriting; held-out writing hardly is.
WARP = dict(train=1.0, evaluation=0.15)
_PLACE = {
    "top left": (0.26, 0.26),
    "top right": (0.74, 0.26),
    "bottom left": (0.26, 0.74),
    "bottom right": (0.74, 0.74),
    "middle": (0.5, 0.5),
}
_PAD = 2  # empty pixels around a cached digit, for the bicubic kernel


class Extent(Protocol):
    """Something that takes room in an arrangement; `half` its half extents (x, y) in pixels."""

    half: tuple[float, float]

    def shrink(self, factor: float) -> None: ...


class Stroke:
    """One thing's writing under its warp: the 2x2 matrix from source to canvas pixels, and its half extents."""

    def __init__(self, source: int, height: float, draw: Draw, warp: float):
        self.source = source
        angle, shear = math.radians(15) * warp * draw(), 0.18 * warp * draw()
        scale_x = height / 8 * (1 + 0.14 * warp * draw())
        scale_y = height / 8 * (1 + 0.14 * warp * draw())
        cos, sin = math.cos(angle), math.sin(angle)
        self.matrix = [cos * scale_x, (cos * shear - sin) * scale_y, sin * scale_x, (sin * shear + cos) * scale_y]
        self.bias, self.gain = 0.06 + 0.05 * warp * draw(), 1.25 + 0.25 * warp * draw()  # thin or bold strokes
        self.shade = [14 * draw(), 14 * draw(), 14 * draw()]
        self._measure()

    def _measure(self) -> None:
        width, height = digits()[1][self.source][2:]
        a, b, c, d = (abs(value) for value in self.matrix)
        self.half = ((a * width + b * height) / 2 + 0.3, (c * width + d * height) / 2 + 0.3)

    def shrink(self, factor: float) -> None:
        """Multiplies the writing's extents by a factor."""
        self.matrix = [value * factor for value in self.matrix]
        self._measure()

    def transformed(self, factor: float = 1.0, angle: float = 0.0) -> "Stroke":
        """A copy, enlarged by a factor and turned clockwise by an angle in radians."""
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        a, b, c, d = self.matrix
        result = copy.copy(self)
        result.matrix = [cos * a - sin * c, cos * b - sin * d, sin * a + cos * c, sin * b + cos * d]
        result._measure()
        return result


def render(form: Meaning, sources: Sequence[int], split: str, size: int, pick: Pick, draw: Draw) -> np.ndarray:
    """The image of a form, uint8 [size, size, 3].

    Args:
      sources: the number of the written digit of each thing.
      pick, draw: random numbers: one of some options, and a number from -1 to 1.
    """
    strokes = written(form, sources, split, size, draw)
    centres = arrange(form.layout, form.place, strokes, size, draw)
    canvas = background(size, draw, pick)
    for stroke, thing, centre in zip(strokes, form.things, centres, strict=True):
        paint(canvas, stroke, RGB[thing.color], centre)
    return pixels(canvas)


def written(form: Meaning, sources: Sequence[int], split: str, size: int, draw: Draw) -> list[Stroke]:
    """The strokes of a form's things; arguments as `render`."""
    return [
        Stroke(source, HEIGHT[thing.size] * size / 40, draw, WARP[split])
        for source, thing in zip(sources, form.things, strict=True)
    ]


def pixels(canvas: np.ndarray) -> np.ndarray:
    """A canvas as uint8 of the same shape."""
    return np.clip(canvas, 0, 255).astype(np.uint8)


def arrange(layout: str, place: str, strokes: Sequence[Extent], size: int, draw: Draw) -> list[tuple[float, float]]:
    """Centres (x, y) in pixels: inside the canvas, apart from each other, in the layout's relation."""
    if layout == "single":
        centre = (share * size + 0.035 * size * draw() for share in _PLACE[place])
        x, y = (min(max(at, half), size - half) for at, half in zip(centre, strokes[0].half, strict=True))
        return [(x, y)]
    middle = size / 2
    if layout == "pair":
        upper, *lower = strokes
        top, bottom = _line([upper.half[1], max(stroke.half[1] for stroke in lower)], size, draw)
        xs = _line([stroke.half[0] for stroke in lower], size, draw)
        return [(middle + 0.1 * size * draw(), top), (xs[0], bottom), (xs[1], bottom)]
    axis = 0 if layout in ("horizontal", "row") else 1
    shrink = min(1.0, 0.94 * size / (2 * sum(stroke.half[axis] for stroke in strokes)))
    if shrink < 1:  # they would not fit in a line between the canvas' edges
        for stroke in strokes:
            stroke.shrink(shrink)
    along = _line([stroke.half[axis] for stroke in strokes], size, draw)
    common = middle + 0.16 * size * draw()
    across = [common + 0.04 * size * draw() for _ in strokes]
    return list(zip(along, across, strict=True) if axis == 0 else zip(across, along, strict=True))


def _line(halves: list[float], size: int, draw: Draw) -> list[float]:
    """Centres of things in a line, with the room that is left divided at random among the gaps."""
    slack = max(0.0, size - 2 * sum(halves))
    weights = [0.7 + 0.6 * draw()] + [1.6 + 0.6 * draw() for _ in halves[1:]] + [0.7 + 0.6 * draw()]
    unit, at, centres = slack / sum(weights), 0.0, []
    for half, weight in zip(halves, weights[:-1], strict=True):
        at += weight * unit
        centres.append(at + half)
        at += 2 * half
    return centres


def background(size: int, draw: Draw, pick: Pick) -> np.ndarray:
    """A dark shade with a slight gradient and grain: float32 [size, size, 3].

    Always darker than the writing: with light shades among them, the same stroke is sometimes brighter and sometimes
    darker than its surroundings, and an encoder trained for minutes from scratch learns colours and places but no digits.
    """
    level = 42 + 22 * draw()
    shade = np.array([level + 9 * draw(), level + 9 * draw(), level + 9 * draw()], np.float32)
    ramp, grain = _textures(size)
    top, left = pick(range(size)), pick(range(size))
    relief = grain[top : top + size, left : left + size] + (10 * draw()) * ramp + (10 * draw()) * ramp.T
    return shade + relief[:, :, None]


def paint(canvas: np.ndarray, stroke: Stroke, rgb: tuple[int, int, int], centre: tuple[float, float]) -> None:
    """Blends the writing into the canvas; its intensity is the colour's opacity."""
    images, boxes, _ = digits()
    size = canvas.shape[0]
    (x, y), (half_x, half_y) = centre, stroke.half
    left, top = max(0, int(x - half_x - 1)), max(0, int(y - half_y - 1))
    right, bottom = min(size, int(x + half_x + 2)), min(size, int(y + half_y + 2))
    a, b, c, d = stroke.matrix
    inverse = 1 / (a * d - b * c)
    a, b, c, d = d * inverse, -b * inverse, -c * inverse, a * inverse
    middle_x, middle_y = boxes[stroke.source][:2]
    across = a * (left - x) + b * (top - y) + middle_x
    down = c * (left - x) + d * (top - y) + middle_y
    extent, inverted = (right - left, bottom - top), (a, b, across, c, d, down)
    writing = images[stroke.source].transform(extent, Image.Transform.AFFINE, inverted, Image.Resampling.BICUBIC)
    intensity = np.frombuffer(writing.tobytes(), np.uint8).reshape(bottom - top, right - left)
    alpha = intensity * np.float32(stroke.gain / 255) - np.float32(stroke.bias)
    alpha = np.minimum(np.maximum(alpha, 0), 1)[:, :, None]
    color = np.array([rgb[0] + stroke.shade[0], rgb[1] + stroke.shade[1], rgb[2] + stroke.shade[2]], np.float32)
    patch = canvas[top:bottom, left:right]
    patch += alpha * (color - patch)


@functools.cache
def digits() -> tuple[list[Image.Image], list[tuple[float, float, float, float]], list[int]]:
    """The padded digits as 8-bit images; their writing's centre and extent (x, y, width, height); their classes."""
    from sklearn import datasets  # takes a second, which only programs that draw scenes need

    bunch = datasets.load_digits()
    images, boxes = [], []
    for digit in bunch.images:
        padded = np.pad(np.rint(digit * (255 / 16)).astype(np.uint8), _PAD)
        images.append(Image.fromarray(padded))
        rows, columns = np.nonzero(padded.max(1) > 60)[0], np.nonzero(padded.max(0) > 60)[0]
        left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        centre = float(left + right) / 2, float(top + bottom) / 2
        boxes.append((*centre, float(right - left), float(bottom - top)))
    return images, boxes, [int(target) for target in bunch.target]


@functools.cache
def _textures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A ramp from -1 to 1 along x [size, size], and grain [2 size, 2 size] of which each scene takes a window."""
    ramp = np.broadcast_to(np.linspace(-1, 1, size, dtype=np.float32), (size, size))
    grain = np.random.default_rng(0).normal(0, 3, (2 * size, 2 * size)).astype(np.float32)
    return ramp, grain
