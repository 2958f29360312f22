"""Ranks by dot product and labels: equal to those of the whole matrix of scores, of which some rows exist at a time."""

import tracemalloc

import numpy as np
import pytest

from coca_jax.evaluation.metrics import ranking
from coca_jax.evaluation.metrics.ranking import NO_LABEL


def _right(first, second):
    return ((first[:, :, None, None] == second.T[None, None]) & (first != NO_LABEL)[:, :, None, None]).any(axis=(1, 2))


@pytest.mark.parametrize("scores_at_a_time", [16 * 45, 4_000_000])
def test_ranks_equal_those_of_the_whole_matrix_with_ties_and_nan(scores_at_a_time, monkeypatch):
    monkeypatch.setattr(ranking, "_SCORES", scores_at_a_time)
    rng = np.random.default_rng(0)
    first, second = (rng.integers(-1, 2, (count, 5)).astype(np.float32) for count in (70, 45))  # many ties, no rounding
    first[3], second[7] = np.nan, np.nan
    labels, other_labels = (rng.integers(NO_LABEL, 39, (count, 3)) for count in (70, 45))
    other_labels[:, 1:] = NO_LABEL
    right, scores = _right(labels, other_labels), first @ second.T
    assert not right.any(axis=1).all() and right.sum() > 50
    for found, own, of in (
        (ranking.label_ranks(first, second, labels, other_labels), scores, right),
        (ranking.label_ranks(second, first, other_labels, labels), scores.T, right.T),
    ):
        np.testing.assert_array_equal(found[0], ranking.ranks(own, of))
        np.testing.assert_array_equal(found[1], of.sum(axis=1))


@pytest.mark.parametrize("count, width", [(150, 768), (37, 96), (1_003, 33), (2, 5)])
def test_copies_tie_wherever_they_stand(count, width, monkeypatch):
    monkeypatch.setattr(ranking, "_SCORES", 64 * count)
    rng = np.random.default_rng(1)
    vectors, kind = rng.normal(size=(3, width)).astype(np.float32), rng.integers(0, 3, count)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.arange(count)[:, None]
    found, _ = ranking.label_ranks(vectors[kind], vectors[kind], labels, labels)
    np.testing.assert_array_equal(found, np.bincount(kind)[kind] - 1)  # all copies but one's own
    for rows, scores in ranking.scored_blocks(vectors[kind], vectors[kind]):
        for one in range(3):
            assert all(len(set(row[kind == one])) <= 1 for row in scores), rows


def test_the_matrix_never_stands_in_memory(monkeypatch):
    monkeypatch.setattr(ranking, "_SCORES", 64 * 1_000)
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=(count, 8)).astype(np.float32) for count in (1_280, 1_000))
    ranking.label_ranks(first[:1], second, np.zeros((1, 1)), np.arange(1_000)[:, None])  # imports, compiles
    tracemalloc.start()
    found, _ = ranking.label_ranks(first, second, np.arange(1_280)[:, None], np.arange(1_000)[:, None])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores = first @ second.T
    np.testing.assert_array_equal(found, ranking.ranks(scores, np.eye(1_280, 1_000, dtype=bool)))
    assert peak < scores.nbytes / 3


def test_without_queries_or_candidates_there_are_no_ranks():
    nothing, some = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    no_labels, labels = np.zeros((0, 1), np.int64), np.zeros((3, 1), np.int64)
    assert [len(one) for one in ranking.label_ranks(nothing, some, no_labels, labels)] == [0, 0]
    found, counts = ranking.label_ranks(some, nothing, labels, no_labels)
    assert found.tolist() == counts.tolist() == [0, 0, 0]
