"""Scenes composed for a task: digits that fit a description, among others that do not."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coca_jax.data.digit_scenes.language import COLORS, DIGITS, LAYOUTS, PLACES, SIZES, Meaning, Thing
from coca_jax.data.digit_scenes.rendering import digits
from coca_jax.data.digit_scenes.scenes import numbers

PROPERTIES: dict[str, tuple[str, ...]] = dict(size=SIZES, color=COLORS, digit=DIGITS)
# Where each of a layout's things is, in their order.
POSITIONS = {
    "horizontal": ("on the left", "on the right"),
    "vertical": ("at the top", "at the bottom"),
    "row": ("on the left", "in the middle", "on the right"),
    "column": ("at the top", "in the middle", "at the bottom"),
    "pair": ("at the top", "in the bottom left", "in the bottom right"),
}
# A position's layouts, with the number of the thing there.
SPOTS = {
    position: [(layout, words.index(position)) for layout, words in POSITIONS.items() if position in words]
    for position in dict.fromkeys(position for words in POSITIONS.values() for position in words)
}
_NUMBERS = 64  # drawn at a time


class Dice:
    """Random numbers without end that follow from a key of integers."""

    def __init__(self, *key: int):
        self._rng = np.random.default_rng(key)
        self._numbers: list[float] = []

    def uniform(self) -> float:
        """A number in [0, 1)."""
        if not self._numbers:
            self._numbers = self._rng.random(_NUMBERS).tolist()
        return self._numbers.pop()

    def draw(self) -> float:
        """A number from -1 to 1."""
        return 2 * self.uniform() - 1

    def pick(self, options: Sequence):
        """One of the options, all equally likely."""
        return options[int(self.uniform() * len(options))]


class Description(NamedTuple):
    """Properties that a digit is described by; "" where it may be anything."""

    size: str = ""
    color: str = ""
    digit: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.color, self.digit or "digit") if word)

    def plural(self) -> str:
        """Words for several such digits."""
        return f"{self}es" if self.digit == "six" else f"{self}s"

    def fits(self, thing: Thing) -> bool:
        """Whether the thing has all of the properties."""
        return all(not wanted or wanted == actual for wanted, actual in zip(self, thing, strict=True))


@dataclasses.dataclass(frozen=True)
class Plan:
    """An example of a task but for its images.

    Attributes:
      text: a caption, question, hypothesis or statement.
      answer: one of the task's class names.
      kind: of the text, for results by kind.
      forms: of the images.
    """

    text: str
    answer: str
    kind: str
    forms: tuple[Meaning, ...]


def with_article(words: str) -> str:
    """The words of a digit after "a" or "an"."""
    return f"{'an' if words.startswith(('orange', 'eight')) else 'a'} {words}"


def describe(dice: Dice, properties: Sequence[str]) -> Description:
    """A description by some properties, at random."""
    return Description(**{name: dice.pick(PROPERTIES[name]) for name in properties})


def near_miss(dice: Dice, subject: Description) -> Description:
    """The description with another value of one of its properties."""
    name = dice.pick([name for name, value in subject._asdict().items() if value])
    return another(dice, subject, name)


def another(dice: Dice, subject: Description, name: str) -> Description:
    """The description with another value of the property `name`."""
    value = getattr(subject, name)
    return subject._replace(**{name: dice.pick([other for other in PROPERTIES[name] if other != value])})


def fitting(dice: Dice, description: Description, unlike: Sequence[Description] = ()) -> Thing:
    """A random thing that fits a description and none of `unlike`."""
    while True:
        thing = Thing(*(value or dice.pick(PROPERTIES[name]) for name, value in description._asdict().items()))
        if not any(other.fits(thing) for other in unlike):
            return thing


def compose(
    dice: Dice, layout: str, given: Mapping[int, Description], unlike: Sequence[Description] = (), place: str = ""
) -> Meaning:
    """A random form of a layout.

    Args:
      given: descriptions of things by their number in the layout.
      unlike: descriptions that fit no other thing of the form.
      place: of the only thing of a "single" layout; "": a random one.
    """
    count = next(count for count, layouts in LAYOUTS.items() if layout in layouts)
    while True:
        things = tuple(
            fitting(dice, given[number]) if number in given else fitting(dice, Description(), unlike)
            for number in range(count)
        )
        if layout not in ("row", "column") or [thing.size for thing in things].count("large") < 3:
            break  # three large ones do not fit in a line
    if layout == "single":
        return Meaning(layout, place or dice.pick(PLACES), things)
    return Meaning(layout, "", things)


def compose_count(dice: Dice, subject: Description, count: int) -> Meaning:
    """A random form in which a description fits `count` things, from 0 (1 of "digit") to 3."""
    total = dice.pick(range(max(1, count), 4)) if any(subject) else count
    numbers = list(range(total))
    given = {numbers.pop(dice.pick(range(len(numbers)))): subject for _ in range(count)}
    # All may have to be large, for which other layouts of three have no room.
    layouts = ("pair",) if subject.size and total == 3 else LAYOUTS[total]
    return compose(dice, dice.pick(layouts), given, [subject] if any(subject) else [])


def pick_layout(dice: Dice) -> tuple[str, int]:
    """A layout of one to three things, and the number of one of them."""
    count = dice.pick(tuple(LAYOUTS))
    return dice.pick(LAYOUTS[count]), dice.pick(range(count))


def sources(dice: Dice, form: Meaning, split: str) -> list[int]:
    """A random written digit of the split for each thing of a form."""
    return [dice.pick(_by_digit(split)[thing.digit]) for thing in form.things]


@functools.cache
def _by_digit(split: str) -> dict[str, list[int]]:
    classes = digits()[2]
    result: dict[str, list[int]] = {digit: [] for digit in DIGITS}
    for number in numbers(split):
        result[DIGITS[classes[number]]].append(number)
    return result
