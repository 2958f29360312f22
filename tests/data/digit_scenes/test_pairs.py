"""Pairs: truth by an independent reading, and what one image without the other tells about it."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.naive_bayes import MultinomialNB

from coca_jax.data.digit_scenes.tasks import task_plan
from tests.data.digit_scenes import reading


@pytest.fixture(scope="module")
def plans():
    return [task_plan("pairs", index, split)[1] for split in ("train", "evaluation") for index in range(3_000)]


def test_the_truth_is_that_of_an_independent_reading(plans):
    for plan in plans:
        assert str(reading.is_true(plan.text, *plan.forms)).lower() == plan.answer, plan


def test_the_kinds_are_balanced(plans):
    answers = defaultdict(Counter)
    for plan in plans:
        answers[plan.kind][plan.answer] += 1
    assert set(answers) == {"both", "either", "sides"}
    for counts in answers.values():
        assert abs(counts["true"] / counts.total() - 0.5) < 0.07


@pytest.mark.parametrize("side", [0, 1])
def test_an_image_without_its_statement_does_not_tell_the_truth(plans, side):
    def shown(plan):
        form = plan.forms[side]
        words = Counter(itertools.chain(*form.things))
        return {form.layout: 1, **{f"{number} {word}": 1 for word, number in words.items()}, **words}

    facts, labels = DictVectorizer().fit_transform(map(shown, plans)), np.array([plan.answer for plan in plans])
    accuracy = np.mean(MultinomialNB().fit(facts[:4_000], labels[:4_000]).predict(facts[4_000:]) == labels[4_000:])
    assert accuracy < 0.55


def test_exchanging_one_image_changes_the_truth_of_every_kind(plans):
    """Each image is needed: with another statement's image of the same kind in its place, the reading differs for some."""
    for side in (0, 1):
        changed = Counter()
        for kind in ("both", "sides", "either"):
            same = [plan for plan in plans if plan.kind == kind][:300]
            for plan, other in itertools.pairwise(same):
                forms = list(plan.forms)
                forms[side] = other.forms[side]
                changed[kind] += str(reading.is_true(plan.text, *forms)).lower() != plan.answer
        assert min(changed.values()) > 40, changed
