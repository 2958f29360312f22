"""Clips of one digit that moves, grows, turns or fades.

Each action has an opposite, of which the same frames in reverse order are a clip: a clip is drawn as its motion's first
action, by random numbers that do not depend on the direction, and reversed for the second. So the set of a clip's frames
without their order tells nothing about the direction.
"""

import dataclasses
import math

import numpy as np

from coca_jax.data.digit_scenes.composition import Description, Dice, Plan, compose, sources, with_article
from coca_jax.data.digit_scenes.rendering import RGB, Stroke, background, paint, pixels, written

FRAMES = 8
MOTIONS = (  # an action and its opposite
    ("moves right", "moves left"),
    ("moves down", "moves up"),
    ("moves down and right", "moves up and left"),
    ("moves up and right", "moves down and left"),
    ("grows", "shrinks"),
    ("turns clockwise", "turns counterclockwise"),
    ("fades in", "fades out"),
)
ACTIONS = tuple(action for motion in MOTIONS for action in motion)
# Of the motions' first actions: steps to the right and down.
_DIRECTIONS = {
    "moves right": (1, 0),
    "moves down": (0, 1),
    "moves down and right": (1, 1),
    "moves up and right": (1, -1),
}


@dataclasses.dataclass(frozen=True)
class ActionPlan(Plan):
    """A caption with its digit's form, and the motion, a number in `MOTIONS`; reversed for its second action."""

    motion: int
    reverse: bool


def plan(dice: Dice) -> ActionPlan:
    """A random clip's caption, action (one of `ACTIONS`) and form; `kind` is the first word of its motion."""
    motion, reverse = dice.pick(range(len(MOTIONS))), dice.pick((False, True))
    action, kind = MOTIONS[motion][reverse], MOTIONS[motion][0].split()[0]
    form = compose(dice, "single", {0: Description()})
    subject = with_article(f"{form.things[0].color} {form.things[0].digit}")
    return ActionPlan(f"{subject} {action}", action, kind, (form,), motion, reverse)


def picture(plan: ActionPlan, dice: Dice, split: str, size: int) -> np.ndarray:
    """The clip's frames, uint8 [FRAMES, size, size, 3]."""
    (form,) = plan.forms
    (writing,) = written(form, sources(dice, form, split), split, size, dice.draw)
    empty = background(size, dice.draw, dice.pick)
    frames = []
    for stroke, centre, opacity in _states(MOTIONS[plan.motion][0], writing, size, dice):
        canvas = empty.copy()
        paint(canvas, stroke, RGB[form.things[0].color], centre)
        frames.append(pixels(empty + opacity * (canvas - empty)))
    return np.stack(frames[::-1] if plan.reverse else frames)


def _states(action: str, stroke: Stroke, size: int, dice: Dice) -> list[tuple[Stroke, tuple[float, float], float]]:
    """The writing, its centre and its opacity in each frame of a motion's first action."""
    if action in _DIRECTIONS:
        return [(stroke, centre, 1.0) for centre in _path(_DIRECTIONS[action], stroke, size, dice)]
    shares = np.linspace(0, 1, FRAMES).tolist()
    middle = size * (0.5 + 0.1 * dice.draw()), size * (0.5 + 0.1 * dice.draw())
    if action == "fades in":
        first, last = 0.08 + 0.06 * dice.draw(), 0.9 + 0.1 * dice.draw()
        return [(stroke, middle, first + share * (last - first)) for share in shares]
    # Enlarged to a height of about 18 pixels of 40, to be seen well.
    height = (0.45 + 0.05 * dice.draw()) * size / (2 * stroke.half[1])
    if action == "grows":
        ratio = 2.2 + 0.4 * dice.draw()
        return [(stroke.transformed(height * ratio ** (share - 1)), middle, 1.0) for share in shares]
    first, turn = math.radians(-60 + 30 * dice.draw()), math.radians(120 + 30 * dice.draw())
    return [(stroke.transformed(height, first + share * turn), middle, 1.0) for share in shares]


def _path(direction: tuple[int, int], stroke: Stroke, size: int, dice: Dice) -> list[tuple[float, float]]:
    """The centre in each frame, on a straight line inside the canvas that spans most of the room that there is."""
    starts, steps = [], []
    for sign, half in zip(direction, stroke.half, strict=True):
        room = size - 2 * half
        length = room * (0.8 + 0.2 * dice.draw()) if sign else 0.0
        low = half + (room - length) * dice.uniform()
        starts.append(low if sign >= 0 else low + length)
        steps.append(sign * length / (FRAMES - 1))
    (x, y), (step_x, step_y) = starts, steps
    return [(x + frame * step_x, y + frame * step_y) for frame in range(FRAMES)]
