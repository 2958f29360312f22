import numpy as np
import pytest

from coca_jax.embedding_index import nearest as nearest_lib
from coca_jax.embedding_index.nearest import nearest


def _brute_force(queries, vectors, k):
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


def _whole_numbers(rng, count):
    return rng.integers(-1, 2, (count, 5)).astype(np.float32)  # few distinct scores, and none is rounded


@pytest.mark.parametrize("sizes", [(90,), (0, 37, 1, 52)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_equals_brute_force_with_ties_in_any_parts(sizes, dtype, monkeypatch):
    monkeypatch.setattr(nearest_lib, "_QUERIES", 16)
    monkeypatch.setattr(nearest_lib, "_VECTORS", 32)
    rng = np.random.default_rng(0)
    queries, parts = _whole_numbers(rng, 21), [_whole_numbers(rng, size) for size in sizes]
    expected = _brute_force(queries, np.concatenate(parts), 50)
    found = nearest(queries, [part.astype(dtype) for part in parts], 50)  # more than one block holds
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0].dtype == np.int64 and found[1].dtype == np.float32


def test_copies_tie_wherever_they_stand(monkeypatch):
    monkeypatch.setattr(nearest_lib, "_VECTORS", 64)
    rng = np.random.default_rng(1)
    distinct, kind = rng.normal(size=(3, 768)).astype(np.float32), rng.integers(0, 3, 150)
    indices, scores = nearest(rng.normal(size=(5, 768)).astype(np.float32), [distinct[kind]], 150)
    for row, values in zip(indices, scores, strict=True):
        assert len(set(values.tolist())) == 3
        for own in range(3):
            np.testing.assert_array_equal(row[kind[row] == own], np.flatnonzero(kind == own))


def test_half_precision_moves_a_score_by_less_than_half_a_thousandth():
    rng = np.random.default_rng(2)
    queries, vectors = (rng.normal(size=(count, 768)).astype(np.float32) for count in (20, 300))
    queries, vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, vectors))
    vectors[:20] = queries  # the largest scores
    indices, scores = nearest(queries, [vectors.astype(np.float16)], 300)
    exact = np.take_along_axis(queries @ vectors.T, indices, axis=1)
    rounded = np.take_along_axis(queries @ vectors.astype(np.float16).astype(np.float32).T, indices, axis=1)
    assert 0 < np.abs(scores - exact).max() < 5e-4
    np.testing.assert_allclose(scores, rounded, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_what_is_no_number_comes_last_and_nothing_is_found_among_nothing():
    vectors = np.array([[np.nan, 0], [-5, 0], [1, 0]], np.float32)
    np.testing.assert_array_equal(nearest(np.array([[1, 0]], np.float32), [vectors], 9)[0], [[2, 1, 0]])
    assert nearest(vectors, [vectors[:0]], 3)[0].shape == (3, 0)
    assert nearest(vectors[:0], [vectors], 2)[1].shape == (0, 2)
