import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.evaluation.metrics import ranking


def _brute_force_rank(scores, right):
    if not right.any() or np.isnan(scores[right]).any():
        return len(scores)
    best = max(scores[right])
    return sum(1 for s, r in zip(scores, right, strict=True) if not r and (np.isnan(s) or s >= best))


def test_ranks_equal_brute_force_with_ties_and_several_right_answers():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (200, 15)).astype(np.float32)  # few distinct values: many ties
    right = rng.random((200, 15)) < 0.2  # some queries have no right answer
    assert not right.any(axis=1).all()
    expected = [_brute_force_rank(s, r) for s, r in zip(scores, right, strict=True)]
    np.testing.assert_array_equal(ranking.ranks(scores, right), expected)


def test_equal_scores_and_nan_are_no_hits():
    right = np.eye(4, dtype=bool)
    for value in (1.0, 0.0, np.nan, -np.inf):
        scores = np.full((4, 4), value, np.float32)
        assert ranking.hit_rate(ranking.ranks(scores, right), 3) == 0.0
    assert ranking.hit_rate(ranking.ranks(np.eye(4, dtype=np.float32), right), 1) == 1.0


def test_a_permutation_of_the_candidates_changes_nothing():
    rng = np.random.default_rng(1)
    scores, right = rng.integers(0, 4, (50, 20)).astype(np.float32), rng.random((50, 20)) < 0.3
    order = rng.permutation(20)
    np.testing.assert_array_equal(ranking.ranks(scores, right), ranking.ranks(scores[:, order], right[:, order]))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_scikit_learn(k):
    rng = np.random.default_rng(2)
    scores, targets = rng.normal(size=(300, 12)), rng.integers(0, 12, 300)
    expected = sklearn_metrics.top_k_accuracy_score(targets, scores, k=k, labels=np.arange(12))
    assert ranking.hit_rate(ranking.ranks(scores, targets[:, None] == np.arange(12)), k) == pytest.approx(expected)


def test_chance_equals_the_hit_rate_of_random_orders():
    rng = np.random.default_rng(3)
    right = rng.random((40, 30)) < 0.1
    for k in (1, 5, 10):
        found = np.mean([ranking.hit_rate(ranking.ranks(rng.random((40, 30)), right), k) for _ in range(300)])
        assert ranking.chance_hit_rate(right.sum(axis=1), 30, k) == pytest.approx(found, abs=0.02)
    assert ranking.chance_hit_rate(np.ones(4), 3, 10) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_chance_is_exact_for_each_number_of_right_answers(seed):
    counts = np.random.default_rng(seed).integers(0, 7, 20)
    for k in (1, 4, 9, 12):
        missed = [math.comb(9 - count, min(k, 9)) / math.comb(9, min(k, 9)) for count in counts]
        assert ranking.chance_hit_rate(counts, 9, k) == pytest.approx(1 - np.mean(missed))
