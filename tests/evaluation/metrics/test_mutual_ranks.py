import tracemalloc

import numpy as np
import pytest

from coca_jax.evaluation.meaning import NO_LABEL
from coca_jax.evaluation.metrics import mutual_ranks, ranking


def _right(first, second):
    return ((first[:, :, None, None] == second.T[None, None]) & (first != NO_LABEL)[:, :, None, None]).any(axis=(1, 2))


@pytest.mark.parametrize("side", [16, 2_048])
def test_ranks_equal_those_of_the_whole_matrix_with_ties_and_nan(side, monkeypatch):
    monkeypatch.setattr(mutual_ranks, "_SIDE", side)
    rng = np.random.default_rng(0)
    first, second = (rng.integers(-1, 2, (count, 5)).astype(np.float32) for count in (70, 45))  # many ties, no rounding
    first[3], second[7] = np.nan, np.nan
    labels, other_labels = (rng.integers(NO_LABEL, 39, (count, 3)) for count in (70, 45))
    other_labels[:, 1:] = NO_LABEL
    labels += (labels > 20) * (2**32 - 21)  # whose last 32 bits others have too
    other_labels += (other_labels > 20) * (2**32 - 21)
    right, scores = _right(labels, other_labels), first @ second.T
    assert not right.any(axis=1).all() and right.sum() > 50
    found = mutual_ranks.mutual_ranks(first, second, labels, other_labels)
    np.testing.assert_array_equal(found[0], ranking.ranks(scores, right))
    np.testing.assert_array_equal(found[1], ranking.ranks(scores.T, right.T))


def test_copies_tie_wherever_they_stand(monkeypatch):
    monkeypatch.setattr(mutual_ranks, "_SIDE", 64)
    rng = np.random.default_rng(1)
    vectors, kind = rng.normal(size=(3, 768)).astype(np.float32), rng.integers(0, 3, 150)
    labels = np.arange(150)[:, None]
    found = mutual_ranks.mutual_ranks(vectors[kind], vectors[kind], labels, labels)
    expected = np.bincount(kind)[kind] - 1  # all copies but one's own
    gram = vectors @ vectors.T
    assert (gram.argmax(axis=1) == [0, 1, 2]).all()
    for ranks in found:
        np.testing.assert_array_equal(ranks, expected)


def test_the_matrix_never_stands_in_memory(monkeypatch):
    monkeypatch.setattr(mutual_ranks, "_SIDE", 64)
    shapes, block = [], mutual_ranks._block

    def counted(rows, columns):
        shapes.append((len(rows.embeddings), len(columns.embeddings)))
        return block(rows, columns)

    monkeypatch.setattr(mutual_ranks, "_block", counted)
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=(count, 8)).astype(np.float32) for count in (640, 1_000))
    tracemalloc.start()
    found = mutual_ranks.mutual_ranks(first, second, np.arange(640)[:, None], np.arange(1_000)[:, None])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores = first @ second.T
    np.testing.assert_array_equal(found[0], ranking.ranks(scores, np.eye(640, 1_000, dtype=bool)))
    assert set(shapes) == {(64, 64)} and len(shapes) == 10 + 10 * 16  # right pairs stand on the diagonal
    assert peak < scores.nbytes / 5
