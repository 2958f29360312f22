"""Questions on a scene, with their answers.

The question is drawn first, then the answer from all those that the question allows, all equally likely, then a scene
in which it is the right one: the question alone tells nothing about the answer.
"""

from collections.abc import Callable

from coca_jax.data.digit_scenes.composition import (
    PROPERTIES,
    SPOTS,
    Description,
    Dice,
    Plan,
    another,
    compose,
    compose_count,
    describe,
    near_miss,
    pick_layout,
    with_article,
)
from coca_jax.data.digit_scenes.language import COLORS, DIGITS, PLACES, SIZES, Meaning

# Where a thing is: in which layouts, as which of their things; a place of a "single" layout is one too.
_WHERE = {place: [("single", 0)] for place in PLACES}
for _position, _spots in SPOTS.items():
    _WHERE.setdefault(_position.partition(" the ")[2], []).extend(_spots)
ANSWERS = (*DIGITS, *COLORS, *SIZES, *PLACES, "left", "right", "top", "bottom", "yes", "no")

# The thing asked for and the one it is seen from, by their numbers in the layouts that have only one in that direction.
_RELATIONS = {
    "to the left of": (("horizontal", 0, 1), ("row", 0, 1)),
    "to the right of": (("horizontal", 1, 0), ("row", 2, 1)),
    "above": (("vertical", 0, 1), ("column", 0, 1), ("pair", 0, 1), ("pair", 0, 2)),
    "below": (("vertical", 1, 0), ("column", 2, 1)),
}
_OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
_WORDINGS = {
    "color": ("what color is the {}?", "what is the color of the {}?"),
    "digit": ("what digit is {}?", "which digit is {}?"),
    "size": ("what size is the {}?", "is the {} small or large?"),
}
# By which properties a digit is known in questions for a relation.
_SUBJECTS = (("color",), ("digit",), ("color", "digit"))


def plan(dice: Dice) -> Plan:
    """A random question of a random kind, its answer (one of `ANSWERS`) and a form."""
    kind = dice.pick(_SHARES)
    text, answer, form = _KINDS[kind](dice)
    return Plan(text, answer, kind, (form,))


def _property(name: str) -> Callable[[Dice], tuple[str, str, Meaning]]:
    """Questions for a property of a digit that is known by other ones or by its position."""
    others = [other for other in PROPERTIES if other != name]

    def question(dice: Dice) -> tuple[str, str, Meaning]:
        wording, answer = dice.pick(_WORDINGS[name]), dice.pick(PROPERTIES[name])
        if dice.uniform() < 0.3:
            position = dice.pick(tuple(SPOTS))
            layout, number = dice.pick(SPOTS[position])
            form = compose(dice, layout, {number: Description(**{name: answer})})
            return wording.format(position if name == "digit" else f"digit {position}"), answer, form
        subject = describe(dice, dice.pick((others, others[:1], others[1:])))
        layout, number = pick_layout(dice)
        form = compose(dice, layout, {number: subject._replace(**{name: answer})}, unlike=[subject])
        known = " and ".join(filter(None, subject)) if name == "digit" else str(subject)
        return wording.format(known), answer, form

    return question


def _count(dice: Dice) -> tuple[str, str, Meaning]:
    subject = describe(dice, dice.pick((("size",), ("color",), ("digit",), ())))
    count = dice.pick(range(0 if any(subject) else 1, 4))
    # In words, as the digits: captions have no figures, and so their vocabulary has none.
    return f"how many {subject.plural()} are there?", DIGITS[count], compose_count(dice, subject, count)


def _relation(dice: Dice) -> tuple[str, str, Meaning]:
    relation, subject = dice.pick(tuple(_RELATIONS)), describe(dice, dice.pick(_SUBJECTS))
    # Two threes would make "the three" ambiguous.
    answer = dice.pick([digit for digit in DIGITS if subject.color or digit != subject.digit])
    layout, number, seen_from = dice.pick(_RELATIONS[relation])
    form = _unique(dice, layout, {number: Description(digit=answer), seen_from: subject}, [subject])
    return f"which digit is {relation} the {subject}?", answer, form


def _unique(dice: Dice, layout: str, given: dict[int, Description], subjects: list[Description]) -> Meaning:
    """A form of a layout in which each of the subjects fits exactly one thing."""
    while True:
        form = compose(dice, layout, given)
        if all(sum(map(subject.fits, form.things)) == 1 for subject in subjects):
            return form


def _place(dice: Dice) -> tuple[str, str, Meaning]:
    subject = describe(dice, dice.pick((("color",), ("digit",), ("size", "digit"), ("color", "digit"))))
    answer = dice.pick(tuple(_WHERE))
    layout, number = dice.pick(_WHERE[answer])
    place = answer if layout == "single" else ""
    return f"where is the {subject}?", answer, compose(dice, layout, {number: subject}, [subject], place)


def _yes_no(dice: Dice) -> tuple[str, str, Meaning]:
    answer = dice.pick(("yes", "no"))
    return dice.pick((_exists, _is, _is_related))(dice, answer)


def _exists(dice: Dice, answer: str) -> tuple[str, str, Meaning]:
    """Questions such as "is there a red three?"; if not, there is another three or another red digit."""
    properties = dice.pick((("color",), ("digit",), ("color", "digit"), ("size", "color"), ("size", "color", "digit")))
    subject = describe(dice, properties)
    layout, number = pick_layout(dice)
    text = f"is there {with_article(str(subject))}?"
    if answer == "yes":
        return text, answer, compose(dice, layout, {number: subject})
    if len(properties) == 1:
        return text, answer, compose(dice, layout, {}, [subject])
    return text, answer, compose(dice, layout, {number: near_miss(dice, subject)}, [subject])


def _is(dice: Dice, answer: str) -> tuple[str, str, Meaning]:
    """Questions such as "is the red digit a three?", of a digit known by one property or two."""
    name = dice.pick(tuple(PROPERTIES))
    others = [other for other in PROPERTIES if other != name]
    subject = describe(dice, dice.pick((others, others[:1], others[1:])))
    claim = describe(dice, (name,))
    value = getattr(claim, name)
    actual = claim if answer == "yes" else another(dice, claim, name)
    layout, number = pick_layout(dice)
    form = compose(dice, layout, {number: subject._replace(**{name: getattr(actual, name)})}, [subject])
    return f"is the {subject} {with_article(value) if name == 'digit' else value}?", answer, form


def _is_related(dice: Dice, answer: str) -> tuple[str, str, Meaning]:
    """Questions such as "is the three above the blue digit?"; if not, it is below."""
    relation = dice.pick(tuple(_RELATIONS))
    layout, number, seen_from = dice.pick(_RELATIONS[relation if answer == "yes" else _OPPOSITE[relation]])
    first, second = (describe(dice, dice.pick(_SUBJECTS)) for _ in range(2))
    while _includes(first, second) or _includes(second, first):
        second = describe(dice, dice.pick(_SUBJECTS))
    form = _unique(dice, layout, {number: first, seen_from: second}, [first, second])
    return f"is the {first} {relation} the {second}?", answer, form


def _includes(general: Description, special: Description) -> bool:
    """Whether all things that fit `special` fit `general`."""
    return all(not value or value == other for value, other in zip(general, special, strict=True))


_KINDS = {
    "color": _property("color"),
    "digit": _property("digit"),
    "size": _property("size"),
    "count": _count,
    "relation": _relation,
    "place": _place,
    "yes_no": _yes_no,
}
_SHARES = (*_KINDS, "count")  # of eight questions: counting is learned last
