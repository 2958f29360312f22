"""Scenes of one digit, whose class is to be told."""

import dataclasses

import numpy as np

from coca_jax.data.digit_scenes.composition import Description, Dice, Plan, compose
from coca_jax.data.digit_scenes.language import DIGITS, SIZES, phrase
from coca_jax.data.digit_scenes.rendering import digits, render
from coca_jax.data.digit_scenes.scenes import SPLITS, numbers


@dataclasses.dataclass(frozen=True)
class DigitPlan(Plan):
    """A caption with its form; the digit is the written one number `source`."""

    source: int


def plan(dice: Dice, index: int, split: str) -> DigitPlan:
    """The plan of the scene number `index`; `kind` is the digit's size.

    Training scenes show a random one of the split's written digits. Held-out ones show them in turn, alternately all of
    them small and all of them large: each exactly ten times in the first ten times as many scenes as there are digits.
    """
    pool = numbers(split)
    if split == SPLITS[0]:
        source, size = dice.pick(pool), dice.pick(SIZES)
    else:
        turn, number = divmod(index, len(pool))
        source, size = pool[number], SIZES[turn % 2]
    digit = DIGITS[digits()[2][source]]
    form = compose(dice, "single", {0: Description(size=size, digit=digit)})
    return DigitPlan(phrase(form, dice.pick(range(60))), digit, size, (form,), source)


def picture(plan: DigitPlan, dice: Dice, split: str, size: int) -> np.ndarray:
    """The form's image, uint8 [size, size, 3]."""
    return render(plan.forms[0], [plan.source], split, size, dice.pick, dice.draw)
