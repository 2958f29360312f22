"""Questions: an independent reading of the question gives the same answer on the scene's form."""

from collections import Counter, defaultdict

import pytest

from coca_jax.data.digit_scenes.composition import PROPERTIES
from coca_jax.data.digit_scenes.questions import ANSWERS
from coca_jax.data.digit_scenes.tasks import task_plan
from tests.data.digit_scenes import reading


@pytest.fixture(scope="module")
def plans():
    return [task_plan("questions", index, split)[1] for split in ("train", "evaluation") for index in range(3_000)]


def test_the_answer_is_that_of_an_independent_reading(plans):
    for plan in plans:
        (form,) = plan.forms
        assert plan.answer in ANSWERS
        assert reading.answer(plan.text, form) == plan.answer, plan


def test_there_are_seven_kinds_and_two_of_eight_questions_count(plans):
    kinds = Counter(plan.kind for plan in plans)
    assert set(kinds) == {"color", "digit", "size", "count", "relation", "place", "yes_no"}
    assert min(kinds.values()) > 0.1 * len(plans) and 0.22 < kinds["count"] / len(plans) < 0.28


def test_the_answer_is_balanced_for_each_wording():
    answers = defaultdict(Counter)
    for index in range(12_000):
        plan = task_plan("questions", index, "train")[1]
        answers[_wording(plan.text) if plan.kind == "yes_no" else plan.kind][plan.answer] += 1
    frequent = {wording: counts for wording, counts in answers.items() if counts.total() > 100}
    assert len(frequent) > 9
    for wording, counts in frequent.items():
        chance = 1 / len(counts)
        allowed = 0.04 + 3 * (chance * (1 - chance) / counts.total()) ** 0.5
        assert counts.most_common(1)[0][1] / counts.total() < chance + allowed, (wording, counts)


def _wording(text: str) -> str:
    """The text with the names of properties in place of their values."""
    names = {value: name for name, values in PROPERTIES.items() for value in values}
    return " ".join(names.get(word, word) for word in text.removesuffix("?").replace(" an ", " a ").split())


def test_no_thing_is_as_asked_but_some_are_almost(plans):
    for plan in plans:
        if plan.answer == "no" and plan.text.startswith("is there"):
            wanted = set(plan.text.removesuffix("?").split()[3:]) - {"digit"}
            if len(wanted) > 1:
                assert any(len(wanted & set(thing)) == len(wanted) - 1 for thing in plan.forms[0].things), plan
