import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_jax.evaluation.metrics.captions.bleu import BleuCounts, bleu, bleu_counts

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9)


def test_the_example_of_the_paper():
    candidate = ["the", "the", "the", "the", "the", "the", "the"]
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    counts = bleu_counts(candidate, references)
    assert counts == BleuCounts(7, 7, (7, 6, 5, 4), (2, 0, 0, 0))  # "the" is clipped to the two of the first
    assert bleu([counts])[0] == pytest.approx(2 / 7)


def test_by_hand():
    counts = bleu_counts(
        ["a", "dog", "on", "grass"],
        [["a", "dog", "in", "the", "grass"], ["one", "dog", "on", "green", "grass", "today"]],
    )
    assert counts == BleuCounts(4, 5, (4, 3, 2, 1), (4, 2, 0, 0))  # a dog, dog on
    penalty = math.exp(1 - 5 / 4)
    scores = bleu([counts])
    assert scores[:2] == pytest.approx((penalty, penalty * math.sqrt(2 / 3)))
    assert scores[2] < 1e-4 and scores[3] < 1e-4


def test_of_equally_close_references_the_shorter_one_counts():
    references = [["a"] * 6, ["a"] * 2, ["a"] * 9]
    assert bleu_counts(["a"] * 4, references).reference_length == 2


def test_a_corpus_is_the_sum_of_its_captions():
    first = bleu_counts(["a", "dog"], [["a", "dog"]])
    second = bleu_counts(["the", "red", "cat", "sat"], [["a", "red", "cat", "sat"]])
    assert first == BleuCounts(2, 2, (2, 1, 0, 0), (2, 1, 0, 0)) and second.matches == (3, 2, 1, 0)
    assert bleu([first, second])[0] == pytest.approx(5 / 6)


@settings(max_examples=100, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_properties(candidate, references):
    counts = bleu_counts(candidate, references)
    scores = bleu([counts])
    assert all(0 <= score <= 1 for score in scores)
    assert all(match <= most for match, most in zip(counts.matches, counts.candidates, strict=True))
    assert counts == bleu_counts(candidate, references[::-1])
    own = bleu([bleu_counts(candidate, [*references, candidate])])
    orders = min(len(candidate), 4)
    assert own[:orders] == pytest.approx((1.0,) * orders, rel=1e-6)


def test_an_empty_candidate_scores_nothing():
    assert bleu([bleu_counts([], [["a", "dog"]])]) == (0, 0, 0, 0)
