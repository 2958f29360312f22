"""The language of the digit scenes: captions of a scene, and the meaning of a caption.

A caption is a sentence frame ("# above #") with things in it ("a small red three"). Frames exist in both directions
of a relation, so many texts have one meaning; `meaning` gives the canonical form on which they agree.
"""

import re
from typing import NamedTuple

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right", "middle")

# {0} {1} {2} are the things in the layout's order: top to bottom, left to right; pair: the upper one, lower left,
# lower right. Every frame expresses the whole canonical form.
FRAMES = {
    "single": (
        "{0} in the {place}",
        "there is {0} in the {place}",
        "in the {place} there is {0}",
        "a picture of {0} in the {place}",
        "the {place} shows {0}",
    ),
    "vertical": (
        "{0} above {1}",
        "{1} below {0}",
        "there is {0} above {1}",
        "there is {1} below {0}",
        "{0} with {1} under it",
        "{1} with {0} over it",
    ),
    "horizontal": (
        "{0} to the left of {1}",
        "{1} to the right of {0}",
        "there is {0} to the left of {1}",
        "there is {1} to the right of {0}",
        "{0} with {1} on its right",
        "{1} with {0} on its left",
    ),
    "row": (
        "from left to right {0}, {1} and {2}",
        "from right to left {2}, {1} and {0}",
        "{0}, {1} and {2} from left to right",
        "{2}, {1} and {0} from right to left",
        "a row of {0}, {1} and {2}",
    ),
    "column": (
        "from top to bottom {0}, {1} and {2}",
        "from bottom to top {2}, {1} and {0}",
        "{0}, {1} and {2} from top to bottom",
        "{2}, {1} and {0} from bottom to top",
        "a column of {0}, {1} and {2}",
    ),
    "pair": (
        "{0} above {1} on the left and {2} on the right",
        "{0} above {2} on the right and {1} on the left",
        "{1} on the left and {2} on the right below {0}",
        "{2} on the right and {1} on the left below {0}",
        "there is {0} above {1} on the left and {2} on the right",
    ),
}
LAYOUTS = {1: ("single",), 2: ("vertical", "horizontal"), 3: ("row", "column", "pair")}  # by the number of things


class Thing(NamedTuple):
    """One digit of a scene, in words."""

    size: str
    color: str
    digit: str

    def __str__(self) -> str:
        return f"a {self.size} {self.color} {self.digit}"


class Meaning(NamedTuple):
    """A scene's canonical form: two texts have equal ones if and only if they mean the same."""

    layout: str  # a key of `FRAMES`
    place: str  # of the only thing in a "single" layout, one of `PLACES`; "" in the others
    things: tuple[Thing, ...]  # in the layout's order (see `FRAMES`)


_THING = re.compile(rf"\ba ({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(DIGITS)})\b")


def _skeletons() -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Layout, place and the thing in each slot, by the frame with "#" in place of its things."""
    result = {}
    for layout, frames in FRAMES.items():
        for frame in frames:
            slots = tuple(int(slot) for slot in re.findall(r"\{(\d)\}", frame))
            blank = re.sub(r"\{\d\}", "#", frame)
            for place in PLACES if layout == "single" else ("",):
                result[blank.format(place=place)] = (layout, place, slots)
    return result


_SKELETONS = _skeletons()


def phrase(form: Meaning, choice: int) -> str:
    """The form's caption in frame number `choice` (modulo the number of its layout's frames)."""
    frames = FRAMES[form.layout]
    return frames[choice % len(frames)].format(*form.things, place=form.place)


def phrasings(form: Meaning) -> list[str]:
    """Every caption of the form, one a frame."""
    return [phrase(form, choice) for choice in range(len(FRAMES[form.layout]))]


def meaning(text: str) -> Meaning | None:
    """The canonical form of a caption, whatever its case, spaces and full stop; None if it is not of the language."""
    text = " ".join(text.casefold().split()).removesuffix(".")
    skeleton = _SKELETONS.get(_THING.sub("#", text))
    if skeleton is None:
        return None
    layout, place, slots = skeleton
    things = [Thing(*match) for match in _THING.findall(text)]
    if len(things) != len(slots):  # the text itself held a "#"
        return None
    return Meaning(layout, place, tuple(things[slots.index(slot)] for slot in range(len(slots))))
