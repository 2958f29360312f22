"""Entailment: a hypothesis on one digit of a scene of which a grey sheet covers another, or the same, digit.

A hypothesis on the covered digit is neutral; one on a visible digit is entailed or contradicted. The sheet's place and
the visible digits are arranged for a covered digit of fixed extent, so that the image is independent of the true one.
Label, layout and hypothesis are drawn independently of each other, then the scene: neither the hypothesis alone nor the
image alone tells anything about the label.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from coca_jax.data.digit_scenes.composition import (
    POSITIONS,
    Description,
    Dice,
    Plan,
    compose,
    describe,
    near_miss,
    sources,
    with_article,
)
from coca_jax.data.digit_scenes.rendering import RGB, Stroke, arrange, background, paint, pixels, written

LABELS = ("entailment", "neutral", "contradiction")
_SHEET = 118  # its shade of grey
_GRAIN = 3.0


@dataclasses.dataclass(frozen=True)
class CoveredPlan(Plan):
    """A hypothesis with its form, of which thing number `covered` lies under the sheet."""

    covered: int


class _Covered:
    """The extent of the covered digit in the arrangement, in place of its `Stroke`."""

    def __init__(self, extent: float):
        self.half = (extent, extent)

    def shrink(self, factor: float) -> None:
        self.half = (self.half[0] * factor, self.half[1] * factor)


def plan(dice: Dice) -> CoveredPlan:
    """A random hypothesis, its label (one of `LABELS`), and a form with a covered thing."""
    label, layout = dice.pick(LABELS), dice.pick(tuple(POSITIONS))
    positions = POSITIONS[layout]
    number = dice.pick(range(len(positions)))
    # In a line of three, large digits may shrink: only the other layouts' hypotheses speak of sizes.
    lines = layout in ("row", "column")
    options = (("color",), ("digit",), ("color", "digit"), *(() if lines else (("size",), ("size", "digit"))))
    properties = dice.pick(options)
    subject = describe(dice, properties)
    text = _hypothesis(dice, subject, positions[number])
    others = [other for other in range(len(positions)) if other != number]
    covered = number if label == "neutral" else dice.pick(others)
    given = {
        "entailment": {number: subject},
        "neutral": {},
        "contradiction": {number: near_miss(dice, subject)},
    }[label]
    return CoveredPlan(text, label, "_".join(properties), (compose(dice, layout, given),), covered)


def _hypothesis(dice: Dice, subject: Description, position: str) -> str:
    # The position first, so that a causal decoder knows which digit the words after it are about.
    if dice.uniform() < 0.5:
        return f"{position} there is {with_article(str(subject))}"
    if subject.digit:
        return f"the digit {position} is {with_article(str(subject))}"
    return f"the digit {position} is {subject.size or subject.color}"


def picture(plan: CoveredPlan, dice: Dice, split: str, size: int) -> np.ndarray:
    """The form's image with the sheet on it, uint8 [size, size, 3]."""
    (form,) = plan.forms
    strokes: list[Stroke | _Covered] = [*written(form, sources(dice, form, split), split, size, dice.draw)]
    strokes[plan.covered] = _Covered((0.15 if form.layout in ("row", "column") else 0.2) * size)
    centres = arrange(form.layout, "", strokes, size, dice.draw)
    canvas = background(size, dice.draw, dice.pick)
    for stroke, thing, centre in zip(strokes, form.things, centres, strict=True):
        if isinstance(stroke, Stroke):
            paint(canvas, stroke, RGB[thing.color], centre)
    boxes = [
        (x - stroke.half[0], y - stroke.half[1], x + stroke.half[0], y + stroke.half[1])
        for (x, y), stroke in zip(centres, strokes, strict=True)
    ]
    left, top, right, bottom = (round(edge) for edge in sheet(form.layout, plan.covered, boxes, size))
    canvas[top:bottom, left:right] = _SHEET + _GRAIN * dice.draw()
    return pixels(canvas)


def sheet(
    layout: str, covered: int, boxes: Sequence[tuple[float, float, float, float]], size: int
) -> tuple[float, float, float, float]:
    """The sheet's edges, in pixels: it ends midway between the covered digit and its neighbours.

    Args:
      boxes: left, top, right and bottom edge of each of the layout's digits.
    """
    left, top, right, bottom = 0.0, 0.0, float(size), float(size)
    if layout == "pair":
        level = (boxes[0][3] + min(boxes[1][1], boxes[2][1])) / 2
        middle = (boxes[1][2] + boxes[2][0]) / 2
        return [(left, top, right, level), (left, level, middle, bottom), (middle, level, right, bottom)][covered]
    axis = 0 if layout in ("horizontal", "row") else 1
    gaps = [(one[axis + 2] + other[axis]) / 2 for one, other in itertools.pairwise(boxes)]
    ends = [0.0, *gaps, float(size)]
    first, last = ends[covered], ends[covered + 1]
    return (first, top, last, bottom) if axis == 0 else (left, first, right, last)
