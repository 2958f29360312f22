"""Entailment: labels by an independent reading, and sheets that hide the covered digit and nothing else."""

import dataclasses

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.naive_bayes import MultinomialNB

from coca_jax.data.digit_scenes import rendering, statements
from coca_jax.data.digit_scenes.composition import POSITIONS
from coca_jax.data.digit_scenes.language import Thing
from coca_jax.data.digit_scenes.tasks import task_plan
from tests.data.digit_scenes import reading


@pytest.fixture(scope="module")
def plans():
    return [task_plan("entailment", index, split)[1] for split in ("train", "evaluation") for index in range(3_000)]


def test_the_label_is_that_of_an_independent_reading(plans):
    for plan in plans:
        assert reading.entails(plan.text, plan.forms[0], plan.covered) == plan.answer, plan


def test_the_image_does_not_depend_on_the_covered_digit():
    for index in range(200):
        dice, plan = task_plan("entailment", index, "train")
        (form,) = plan.forms
        things = list(form.things)
        covered = things[plan.covered]
        things[plan.covered] = Thing(
            *(("small", "red", "one") if covered.size == "large" else ("large", "pink", "eight"))
        )
        other = dataclasses.replace(plan, forms=(form._replace(things=tuple(things)),))
        image = statements.picture(plan, dice, "train", 40)
        assert np.array_equal(image, statements.picture(other, task_plan("entailment", index, "train")[0], "train", 40))


def test_the_sheet_covers_its_digit_and_no_other(monkeypatch):
    painted, sheets = [], []
    paint, sheet = rendering.paint, statements.sheet

    def record_paint(canvas, stroke, rgb, centre):
        painted.append((centre, stroke.half))
        paint(canvas, stroke, rgb, centre)

    def record_sheet(layout, covered, boxes, size):
        sheets.append((boxes[covered], sheet(layout, covered, boxes, size)))
        return sheets[-1][1]

    monkeypatch.setattr(statements, "paint", record_paint)
    monkeypatch.setattr(statements, "sheet", record_sheet)
    seen = set()
    for index in range(400):
        dice, plan = task_plan("entailment", index, "train")
        painted.clear()
        image = statements.picture(plan, dice, "train", 40).astype(int)
        seen.add((plan.forms[0].layout, plan.covered))
        assert len(painted) == len(plan.forms[0].things) - 1
        box, (left, top, right, bottom) = sheets[-1]
        assert left <= box[0] + 0.01 and top <= box[1] + 0.01 and right >= box[2] - 0.01 and bottom >= box[3] - 0.01
        patch = image[round(top) : round(bottom), round(left) : round(right)]
        assert patch.min() == patch.max() and 100 < patch.min() < 135
        for (x, y), (half_x, half_y) in painted:
            across = min(x + half_x, right) - max(x - half_x, left)
            down = min(y + half_y, bottom) - max(y - half_y, top)
            assert min(across, down) <= 0.01, plan
    assert seen == {(layout, number) for layout, words in POSITIONS.items() for number in range(len(words))}


def test_an_image_alone_does_not_tell_the_label(plans):
    """By all that it shows: the layout, what is covered, and the visible digits with their places."""

    def shown(plan):
        (form,) = plan.forms
        facts = {f"{form.layout} {plan.covered}": 1}
        for number, thing in enumerate(form.things):
            if number != plan.covered:
                facts |= {f"{form.layout} {number} {word}": 1 for word in thing} | dict.fromkeys(thing, 1)
        return facts

    facts, labels = DictVectorizer().fit_transform(map(shown, plans)), np.array([plan.answer for plan in plans])
    accuracy = np.mean(MultinomialNB().fit(facts[:4_000], labels[:4_000]).predict(facts[4_000:]) == labels[4_000:])
    assert accuracy < 1 / 3 + 0.05
