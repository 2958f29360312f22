"""Adaptation tasks on digit scenes: images, a text, and a class that is true of them, by index and without files.

Everything about an example follows from (task, split, index). As in `scenes`, the writing of held-out examples never
occurs in training.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from coca_jax.data.digit_scenes import actions, pairs, questions, single_digits, statements
from coca_jax.data.digit_scenes.composition import Dice, Plan, sources
from coca_jax.data.digit_scenes.language import DIGITS
from coca_jax.data.digit_scenes.rendering import render
from coca_jax.data.digit_scenes.scenes import SPLITS

# The class names, or answers, of each task.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "digits": DIGITS,
    "questions": questions.ANSWERS,
    "entailment": statements.LABELS,
    "pairs": pairs.LABELS,
    "actions": actions.ACTIONS,
}
_NUMBERS = {task: number for number, task in enumerate(CLASSES, start=1)}


class TaskScene(NamedTuple):
    """An example of a task.

    Attributes:
      image: uint8 [size, size, 3]; of "pairs" [2, size, size, 3], left and right; of "actions" [8, size, size, 3].
      text: a caption ("digits", "actions"), question, hypothesis ("entailment") or statement ("pairs").
      label: the class's number in `CLASSES[task]`.
      kind: of the text, for results by kind.
    """

    image: np.ndarray
    text: str
    label: int
    kind: str


class TaskWords(NamedTuple):
    """An example of a task without its image; attributes as those of `TaskScene`."""

    text: str
    label: int
    kind: str


def task_scene(task: str, index: int, split: str = "train", size: int = 40) -> TaskScene:
    """The example number `index` (any integer from 0) of a task, on canvases of `size` pixels a side."""
    dice, plan = task_plan(task, index, split)
    match plan:
        case single_digits.DigitPlan():
            image = single_digits.picture(plan, dice, split, size)
        case statements.CoveredPlan():
            image = statements.picture(plan, dice, split, size)
        case actions.ActionPlan():
            image = actions.picture(plan, dice, split, size)
        case _:
            images = [
                render(form, sources(dice, form, split), split, size, dice.pick, dice.draw) for form in plan.forms
            ]
            image = images[0] if len(images) == 1 else np.stack(images)
    return TaskScene(image, *_words(task, plan))


def task_words(task: str, index: int, split: str = "train") -> TaskWords:
    """The example number `index` of a task without its image."""
    return _words(task, task_plan(task, index, split)[1])


def task_plan(task: str, index: int, split: str) -> tuple[Dice, Plan]:
    """The plan of an example, and the random numbers that are left for its images."""
    dice = Dice(_NUMBERS[task], SPLITS.index(split), index)
    match task:
        case "digits":
            return dice, single_digits.plan(dice, index, split)
        case "questions":
            return dice, questions.plan(dice)
        case "entailment":
            return dice, statements.plan(dice)
        case "pairs":
            return dice, pairs.plan(dice)
        case _:
            return dice, actions.plan(dice)


def _words(task: str, plan: Plan) -> TaskWords:
    return TaskWords(plan.text, CLASSES[task].index(plan.answer), plan.kind)
