import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.evaluation import retrieval
from coca_jax.evaluation.meaning import NO_LABEL, canonical, pool_of
from coca_jax.evaluation.metrics import mutual_ranks, ranking


def _unit(rng, count, width=16):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _brute_force(queries, candidates, right, k):
    hits = []
    for query, own in zip(queries, right, strict=True):
        order = sorted(range(len(candidates)), key=lambda i: -float(query @ candidates[i]))
        hits.append(any(own[i] for i in order[:k]))
    return np.mean(hits)


@pytest.mark.parametrize("side", [2_048, 32])
def test_recall_equals_brute_force_with_several_right_answers(side, monkeypatch):
    monkeypatch.setattr(mutual_ranks, "_SIDE", side)
    rng = np.random.default_rng(0)
    image_labels, text_labels = rng.integers(0, 25, 60), rng.integers(0, 25, 45)
    images, texts = _unit(rng, 60), _unit(rng, 45)
    found = retrieval.retrieval(images, texts, image_labels, text_labels)
    right = image_labels[:, None] == text_labels
    for k in (1, 5, 10):
        assert found.metrics[f"image_to_text_r{k}"] == pytest.approx(_brute_force(images, texts, right, k))
        assert found.metrics[f"text_to_image_r{k}"] == pytest.approx(_brute_force(texts, images, right.T, k))
        for way, own in (("image_to_text", right), ("text_to_image", right.T)):
            expected = ranking.chance_hit_rate(own.sum(axis=1), own.shape[1], k)
            assert found.chance[f"{way}_r{k}"] == pytest.approx(expected)


def test_an_image_with_several_meanings_is_right_for_each():
    images = np.eye(3, dtype=np.float32)
    labels = np.array([[0, 1], [2, 2], [3, NO_LABEL]])
    texts, text_labels = images[[0, 0, 1, 2]], np.array([0, 1, 2, 3])
    found = retrieval.retrieval(images, texts, labels, text_labels)
    assert all(value == 1 for value in found.metrics.values())  # fractions, and ranks
    assert found.chance["image_to_text_r1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert found.chance["text_to_image_r1"] == pytest.approx(1 / 3)


def test_constant_embeddings_find_nothing():
    same = np.tile(_unit(np.random.default_rng(0), 1), (40, 1))
    found = retrieval.retrieval(same, same, np.arange(40), np.arange(40)).metrics
    assert {value for key, value in found.items() if not key.endswith("rank")} == {0.0}
    assert {value for key, value in found.items() if key.endswith("rank")} == {40.0}


def test_the_protocol_of_coco_counts_a_caption_for_its_own_image_alone():
    texts, labels, text_labels = retrieval.caption_pool([("a dog", "a brown dog"), ("a dog", "a cat")])
    assert texts == ["a dog", "a brown dog", "a dog", "a cat"]
    images, embeddings = np.eye(4, dtype=np.float32)[[0, 3]], np.eye(4, dtype=np.float32)[[0, 1, 0, 3]]
    found = retrieval.retrieval(images, embeddings, labels, text_labels, kind="video").metrics
    # The first finds its caption, but the same words belong to the second as well: a tie, so rank 2; texts: 1, 2, 2, 1
    assert found["video_to_text_r1"] == 0.5 and found["video_to_text_mean_rank"] == 1.5
    assert found["text_to_video_r1"] == 0.5 and found["text_to_video_median_rank"] == 1.5
    assert found["video_to_text_r5"] == found["text_to_video_r5"] == 1


def test_mean_rank_is_scikit_learn_s_coverage_where_one_answer_is_right():
    rng = np.random.default_rng(1)
    images, texts = rng.integers(-1, 2, (2, 50, 4)).astype(np.float32)  # few distinct scores: many ties
    found = retrieval.retrieval(images, texts, np.arange(50), np.arange(50)).metrics
    for way, scores in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        assert found[f"{way}_mean_rank"] == pytest.approx(sklearn_metrics.coverage_error(np.eye(50), scores))


def test_no_pictures_give_no_numbers():
    nothing = np.zeros((0, 4), np.float32)
    found = retrieval.retrieval(nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert np.isnan(list(found.metrics.values())).all()


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
