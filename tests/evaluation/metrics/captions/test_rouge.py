import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_jax.evaluation.metrics.captions.rouge import common_subsequence, rouge_l

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=10)


def recursive_subsequence(first, second):
    """The definition, word by word."""

    @functools.cache
    def longest(i, j):
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_the_common_subsequence_is_the_longest(first, second):
    assert common_subsequence(first, second) == recursive_subsequence(first, second)


def test_the_examples_of_the_paper():
    reference = ["police", "killed", "the", "gunman"]
    assert common_subsequence(["police", "kill", "the", "gunman"], reference) == 3
    assert common_subsequence(["the", "gunman", "kill", "police"], reference) == 2


def test_by_hand_with_precision_and_recall_from_different_references():
    candidate = ["a", "dog", "on", "grass"]
    references = [["a", "dog", "on", "the", "long", "green", "grass"], ["dog"]]  # 4/4 and 4/7; 1/4 and 1/1
    assert rouge_l(candidate, references) == pytest.approx((1 + 1.44) * 1 * 1 / (1 + 1.44 * 1))
    assert rouge_l(candidate, references[:1]) == pytest.approx(2.44 * (4 / 7) / (4 / 7 + 1.44))


def test_nothing_in_common_is_nothing():
    assert rouge_l(["a"], [["b"], ["c", "d"]]) == 0


@settings(max_examples=100, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_properties(candidate, references):
    score = rouge_l(candidate, references)
    assert 0 <= score <= 1
    assert score == rouge_l(candidate, references[::-1])
    assert rouge_l(candidate, [*references, candidate]) == pytest.approx(1)
