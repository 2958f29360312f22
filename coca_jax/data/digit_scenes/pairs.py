"""Statements on two images, true of half of them.

All are decided by a sum over the two images, as a linear classifier of both images' outputs can (paper §4.2.3). An image
without its statement tells nothing. With its statement it must tell something: with truth T = 1 if f(left) + g(right) > 0,
else -1, balance for each image would mean E[T f(left)] = E[T g(right)] = 0, but their sum is E|f + g| > 0.
"""

from collections.abc import Callable, Sequence

from coca_jax.data.digit_scenes.composition import (
    Description,
    Dice,
    Plan,
    compose,
    compose_count,
    describe,
    near_miss,
    pick_layout,
    with_article,
)
from coca_jax.data.digit_scenes.language import Meaning

LABELS = ("false", "true")
_SHOWN = (("color",), ("digit",), ("color", "digit"), ("size", "digit"), ("size", "color", "digit"))
_COUNTED = (("color",), ("digit",), ("size",))
# Left and right, where the description fits, by the truth of "both images"; the statements on one or none follow.
_BOTH = {"true": ((1, 1),), "false": ((1, 0), (0, 1))}
_NEITHER = {"true": ((0, 0),), "false": ((1, 0), (0, 1))}
_Statement = tuple[str, Meaning, Meaning]


def plan(dice: Dice) -> Plan:
    """A random statement, its truth (one of `LABELS`), and the forms of the left and the right image."""
    truth, kind = dice.pick(LABELS), dice.pick(_SHARES)
    text, left, right = _KINDS[kind](dice, truth)
    return Plan(text, truth, kind, (left, right))


def _chain(dice: Dice, truth: str, values: Sequence[int]) -> tuple[int, int]:
    """Two of neighbouring values, the first greater than the second if true, and equal if not.

    Equal ones at the ends are half as likely, so that a value tells as little as possible of the truth.
    """
    number = dice.pick(range(len(values) - 1))
    if truth == "true":
        return values[number + 1], values[number]
    return (values[number + dice.pick((0, 1))],) * 2


def _more(dice: Dice, truth: str) -> _Statement:
    """Statements such as "there are more red digits in the left picture than in the right picture"."""
    subject = describe(dice, dice.pick((*_COUNTED, ())))
    values = range(0 if any(subject) else 1, 4)
    more, fewer = _chain(dice, truth, values)
    word, sides = dice.pick(("more", "fewer")), dice.pick((("left", "right"), ("right", "left")))
    text = f"there are {word} {subject.plural()} in the {sides[0]} picture than in the {sides[1]} picture"
    left, right = (more, fewer) if (word == "more") == (sides[0] == "left") else (fewer, more)
    return text, compose_count(dice, subject, left), compose_count(dice, subject, right)


def _shows(dice: Dice, subject: Description, shown: bool) -> Meaning:
    """A form with a thing that fits, or with one that almost does and no other."""
    layout, number = pick_layout(dice)
    if shown:
        return compose(dice, layout, {number: subject})
    given = {number: near_miss(dice, subject)} if sum(map(bool, subject)) > 1 else {}
    return compose(dice, layout, given, [subject])


def _both(dice: Dice, truth: str) -> _Statement:
    subject = describe(dice, dice.pick(_SHOWN))
    left, right = dice.pick(_BOTH[truth])
    text = f"both pictures show {with_article(str(subject))}"
    return text, _shows(dice, subject, left), _shows(dice, subject, right)


def _either(dice: Dice, truth: str) -> _Statement:
    """Statements such as "at least one of the pictures shows a red three", or "neither picture"."""
    subject = describe(dice, dice.pick(_SHOWN))
    negated = dice.pick((False, True))
    left, right = dice.pick(_NEITHER[truth if negated else LABELS[truth == "false"]])
    words = "neither picture shows" if negated else "at least one of the pictures shows"
    return f"{words} {with_article(str(subject))}", _shows(dice, subject, left), _shows(dice, subject, right)


def _sides(dice: Dice, truth: str) -> _Statement:
    """Statements such as "the left picture shows a red three and the right picture shows a four"."""
    first, second = (describe(dice, dice.pick(_SHOWN)) for _ in range(2))
    left, right = dice.pick(_BOTH[truth])
    text = f"the left picture shows {with_article(str(first))} and the right picture shows {with_article(str(second))}"
    return text, _shows(dice, first, left), _shows(dice, second, right)


_KINDS: dict[str, Callable[[Dice, str], _Statement]] = {
    "more": _more,
    "both": _both,
    "either": _either,
    "sides": _sides,
}
_SHARES = ("more", "both", "both", "either", "either", "sides", "sides")  # of seven statements
