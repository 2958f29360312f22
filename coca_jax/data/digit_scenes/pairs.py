"""Statements on two images, true of half of them.

All are decided by a sum over the two images, as a linear classifier of both images' outputs can (paper §4.2.3). An image
without its statement tells nothing. With its statement it must tell something: with truth T = 1 if f(left) + g(right) > 0,
else -1, balance for each image would mean E[T f(left)] = E[T g(right)] = 0, but their sum is E|f + g| > 0.
"""

from collections.abc import Callable, Sequence

from coca_jax.data.digit_scenes.composition import (
    SPOTS,
    Description,
    Dice,
    Plan,
    compose,
    describe,
    near_miss,
    with_article,
)
from coca_jax.data.digit_scenes.language import Meaning

LABELS = ("false", "true")
_SHOWN = (("color",), ("digit",), ("color", "digit"))
# Left and right, where the description fits, by the statement's truth.
_BOTH = {"true": ((1, 1),), "false": ((1, 0), (0, 1), (0, 0))}
_EITHER = {"true": ((1, 0), (0, 1), (1, 1)), "false": ((0, 0),)}
_Statement = tuple[str, Meaning, Meaning]


def plan(dice: Dice) -> Plan:
    """A random statement, its truth (one of `LABELS`), and the forms of the left and the right image."""
    truth, kind = dice.pick(LABELS), dice.pick(_SHARES)
    text, left, right = _KINDS[kind](dice, truth)
    return Plan(text, truth, kind, (left, right))


def _shows(dice: Dice, position: str, subject: Description, shown: bool) -> Meaning:
    """A form with a thing at the position that fits the description, or almost does."""
    layout, number = dice.pick(SPOTS[position])
    return compose(dice, layout, {number: subject if shown else near_miss(dice, subject)})


def _both(dice: Dice, truth: str) -> _Statement:
    """Statements such as "in both pictures the top shows a red three"."""
    return _of_one(dice, "in both pictures", _BOTH[truth])


def _either(dice: Dice, truth: str) -> _Statement:
    """Statements such as "in either picture the bottom left shows a red digit": in one of them, or in both."""
    return _of_one(dice, "in either picture", _EITHER[truth])


def _of_one(dice: Dice, pictures: str, shown: Sequence[tuple[int, int]]) -> _Statement:
    position, subject = dice.pick(tuple(SPOTS)), describe(dice, dice.pick(_SHOWN))
    left, right = dice.pick(shown)
    text = f"{pictures} {_place(position)} shows {with_article(str(subject))}"
    return text, _shows(dice, position, subject, left), _shows(dice, position, subject, right)


def _sides(dice: Dice, truth: str) -> _Statement:
    """Statements such as "the left shows a three in the left picture and a blue four in the right picture"."""
    position, first, second = dice.pick(tuple(SPOTS)), *(describe(dice, dice.pick(_SHOWN[1:])) for _ in range(2))
    left, right = dice.pick(_BOTH[truth])
    things = f"{with_article(str(first))} in the left picture and {with_article(str(second))} in the right picture"
    text = f"{_place(position)} shows {things}"
    return text, _shows(dice, position, first, left), _shows(dice, position, second, right)


def _place(position: str) -> str:
    """The place as a noun: "the left" of "on the left"."""
    return position.partition(" ")[2]


_KINDS: dict[str, Callable[[Dice, str], _Statement]] = {
    "both": _both,
    "either": _either,
    "sides": _sides,
}
_SHARES = (*("both",) * 3, *("either",) * 3, "sides")  # of seven statements
