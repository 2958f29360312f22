import numpy as np
import pytest

from coca_jax.evaluation import ranking, retrieval
from coca_jax.evaluation.meaning import NO_LABEL, canonical, pool_of


def _unit(rng, count, width=16):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _brute_force(queries, candidates, right, k):
    hits = []
    for query, own in zip(queries, right):
        order = sorted(range(len(candidates)), key=lambda i: -float(query @ candidates[i]))
        hits.append(any(own[i] for i in order[:k]))
    return np.mean(hits)


@pytest.mark.parametrize("scores_in_memory", [4_000_000, 50])
def test_recall_equals_brute_force_with_several_right_answers(scores_in_memory, monkeypatch):
    monkeypatch.setattr(ranking, "_CHUNK_SCORES", scores_in_memory)
    rng = np.random.default_rng(0)
    image_labels, text_labels = rng.integers(0, 25, 60), rng.integers(0, 25, 45)
    images, texts = _unit(rng, 60), _unit(rng, 45)
    found = retrieval.retrieval(images, texts, image_labels, text_labels)
    right = image_labels[:, None] == text_labels
    for k in (1, 5, 10):
        assert found.metrics[f"image_to_text_r{k}"] == pytest.approx(_brute_force(images, texts, right, k))
        assert found.metrics[f"text_to_image_r{k}"] == pytest.approx(_brute_force(texts, images, right.T, k))
    assert found.chance["image_to_text_r1"] == pytest.approx(right.mean())


def test_an_image_with_several_meanings_is_right_for_each():
    images = np.eye(3, dtype=np.float32)
    labels = np.array([[0, 1], [2, NO_LABEL], [3, NO_LABEL]])
    texts, text_labels = images[[0, 0, 1, 2]], np.array([0, 1, 2, 3])
    found = retrieval.retrieval(images, texts, labels, text_labels)
    assert set(found.metrics.values()) == {1.0}
    assert found.chance["image_to_text_r1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    np.testing.assert_array_equal(
        retrieval.matches(labels, np.array([[1, NO_LABEL], [NO_LABEL, NO_LABEL]])),
        [[True, False], [False, False], [False, False]],
    )


def test_constant_embeddings_find_nothing():
    same = np.tile(_unit(np.random.default_rng(0), 1), (40, 1))
    found = retrieval.retrieval(same, same, np.arange(40), np.arange(40))
    assert set(found.metrics.values()) == {0.0}


def test_pool_holds_each_text_once_and_joins_equal_meanings():
    meanings = {"a three": 3, "one three": 3, "a four": 4}
    pool = pool_of([("a three",), ("one three", "A  dog"), ("a four",), ("a three", "a dog")], meanings.get)
    assert pool.texts == ["a three", "one three", "A  dog", "a four", "a dog"]
    three, dog, four = pool.text_labels[[0, 2, 3]]
    np.testing.assert_array_equal(pool.text_labels, [three, three, dog, four, dog])
    assert [set(row) - {NO_LABEL} for row in pool.image_labels] == [{three}, {three, dog}, {four}, {three, dog}]
    assert pool.ids[canonical("a  DOG", meanings.get)] == dog


def test_a_text_never_equals_a_meaning():
    assert canonical("dog", {"a dog": "dog"}.get) != canonical("a dog", {"a dog": "dog"}.get)
