"""Readings of the tasks' texts that share no code with what makes them: a text and forms to an answer."""

import re

from coca_jax.data.digit_scenes.language import COLORS, DIGITS, PLACES, SIZES

# Where a layout's things are, to the right and down.
_SPOTS = {
    "horizontal": [(-1, 0), (1, 0)],
    "vertical": [(0, -1), (0, 1)],
    "row": [(-1, 0), (0, 0), (1, 0)],
    "column": [(0, -1), (0, 0), (0, 1)],
    "pair": [(0, -1), (-1, 1), (1, 1)],
}
_NAMES = {
    (-1, 0): "left",
    (1, 0): "right",
    (0, -1): "top",
    (0, 1): "bottom",
    (0, 0): "middle",
    (-1, -1): "top left",
    (1, -1): "top right",
    (-1, 1): "bottom left",
    (1, 1): "bottom right",
}
_POSITION = r"(?:on|at|in) the ((?:top|bottom) (?:left|right)|left|right|top|bottom|middle)"
_RELATION = r"(to the left of|to the right of|above|below)"


def _spots(form) -> list[tuple[int, int]]:
    if form.layout == "single":
        assert form.place in PLACES
        return [next(spot for spot, name in _NAMES.items() if name == form.place)]
    return _SPOTS[form.layout]


def fitting(words: str, form) -> list[int]:
    """The numbers of the form's things that "red three", "threes" or "digit on the left" means."""
    if found := re.fullmatch(f"digit {_POSITION}", words):
        return [i for i, spot in enumerate(_spots(form)) if _NAMES[spot] == found[1]]
    wanted = set(words.replace(" and ", " ").split()) - {"digit", "digits"}
    wanted = {
        word if word in DIGITS else re.sub("e?s$", "", word) if word.endswith("xes") else word.removesuffix("s")
        for word in wanted
    }
    assert wanted <= {*SIZES, *COLORS, *DIGITS}, words
    return [i for i, thing in enumerate(form.things) if wanted <= set(thing)]


def _only(words: str, form) -> int:
    (number,) = fitting(words, form)
    return number


def _are(relation: str, spot: tuple[int, int], other: tuple[int, int]) -> bool:
    (x, y), (other_x, other_y) = spot, other
    match relation:
        case "above":
            return y < other_y
        case "below":
            return y > other_y
        case "to the left of":
            return y == other_y and x < other_x
    return y == other_y and x > other_x


def answer(question: str, form) -> str:
    """The answer to a question on a form; fails if it has not exactly one."""

    def read(pattern: str):
        return re.fullmatch(pattern, question)

    if found := read(r"what color is the (.+)\?") or read(r"what is the color of the (.+)\?"):
        return form.things[_only(found[1], form)].color
    if found := read(r"what size is the (.+)\?") or read(r"is the (.+) small or large\?"):
        return form.things[_only(found[1], form)].size
    if found := read(rf"which digit is {_RELATION} the (.+)\?"):
        spots = _spots(form)
        subject = _only(found[2], form)
        (number,) = [i for i, spot in enumerate(spots) if _are(found[1], spot, spots[subject])]
        return form.things[number].digit
    if found := read(r"(?:what|which) digit is (.+)\?"):
        words = f"digit {found[1]}" if " the " in found[1] else found[1]
        return form.things[_only(words, form)].digit
    if found := read(r"how many (.+) are there\?"):
        return DIGITS[len(fitting(found[1], form))]
    if found := read(r"where is the (.+)\?"):
        return _NAMES[_spots(form)[_only(found[1], form)]]
    if found := read(r"is there an? (.+)\?"):
        return "yes" if fitting(found[1], form) else "no"
    if found := read(rf"is the (.+) {_RELATION} the (.+)\?"):
        spots = _spots(form)
        first, second = _only(found[1], form), _only(found[3], form)
        return "yes" if _are(found[2], spots[first], spots[second]) else "no"
    found = read(r"is the (.+?) (?:an? )?(\w+)\?")
    return "yes" if found[2] in form.things[_only(found[1], form)] else "no"


def entails(hypothesis: str, form, covered: int) -> str:
    """Whether a form of which a thing is covered entails or contradicts a hypothesis."""
    found = re.fullmatch(rf"{_POSITION} there is an? (?P<words>.+)", hypothesis)
    found = found or re.fullmatch(rf"the digit {_POSITION} is (?:an? )?(?P<words>.+)", hypothesis)
    position = next(text for text in found.groups() if text != found["words"])
    (number,) = [i for i, spot in enumerate(_spots(form)) if _NAMES[spot] == position]
    if number == covered:
        return "neutral"
    return "entailment" if number in fitting(found["words"], form) else "contradiction"


def is_true(statement: str, left, right) -> bool:
    """The truth of a statement on two forms."""

    def read(pattern: str):
        return re.fullmatch(pattern, statement)

    place, thing = _POSITION.replace("(?:on|at|in) ", ""), r"an? ((?:\w+ )?\w+)"
    if found := read(rf"in (both pictures|either picture) {place} shows {thing}"):
        shown = [_shows(found[3], found[2], form) for form in (left, right)]
        return all(shown) if found[1] == "both pictures" else any(shown)
    found = read(rf"{place} shows {thing} in the left picture and {thing} in the right picture")
    return _shows(found[2], found[1], left) and _shows(found[3], found[1], right)


def _shows(claim: str, position: str, form) -> bool:
    """Whether a form has a thing at the position, and it is as claimed."""
    return any(_NAMES[_spots(form)[number]] == position for number in fitting(claim, form))
