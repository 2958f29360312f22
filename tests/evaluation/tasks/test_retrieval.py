import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.metrics import ranking
from coca_jax.evaluation.metrics.ranking import NO_LABEL
from coca_jax.evaluation.tasks.retrieval import CaptionPool, retrieval_metrics


def _unit(rng, count, width=16):
    vectors = rng.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _brute_force(queries, candidates, right, k):
    hits = []
    for query, own in zip(queries, right, strict=True):
        order = sorted(range(len(candidates)), key=lambda i: -float(query @ candidates[i]))
        hits.append(any(own[i] for i in order[:k]))
    return np.mean(hits)


@pytest.mark.parametrize("scores_at_a_time", [4_000_000, 16 * 45])
def test_recall_equals_brute_force_with_several_right_answers(scores_at_a_time, monkeypatch):
    monkeypatch.setattr(ranking, "_SCORES", scores_at_a_time)
    rng = np.random.default_rng(0)
    image_labels, text_labels = rng.integers(0, 25, 60), rng.integers(0, 25, 45)
    images, texts = _unit(rng, 60), _unit(rng, 45)
    metrics, baselines = retrieval_metrics(images, texts, image_labels[:, None], text_labels, "image")
    right = image_labels[:, None] == text_labels
    for k in (1, 5, 10):
        assert metrics[f"image_to_text_r{k}"] == pytest.approx(_brute_force(images, texts, right, k))
        assert metrics[f"text_to_image_r{k}"] == pytest.approx(_brute_force(texts, images, right.T, k))
        for way, own in (("image_to_text", right), ("text_to_image", right.T)):
            expected = ranking.chance_hit_rate(own.sum(axis=1), own.shape[1], k)
            assert baselines[f"{way}_r{k}"] == pytest.approx(expected)


def test_an_image_with_several_meanings_is_right_for_each():
    images = np.eye(3, dtype=np.float32)
    labels = np.array([[0, 1], [2, 2], [3, NO_LABEL]])
    texts, text_labels = images[[0, 0, 1, 2]], np.array([0, 1, 2, 3])
    metrics, baselines = retrieval_metrics(images, texts, labels, text_labels, "image")
    assert all(value == 1 for value in metrics.values())  # fractions, and ranks
    assert baselines["image_to_text_r1"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert baselines["text_to_image_r1"] == pytest.approx(1 / 3)


def test_constant_embeddings_find_nothing():
    same = np.tile(_unit(np.random.default_rng(0), 1), (40, 1))
    found, _ = retrieval_metrics(same, same, np.arange(40)[:, None], np.arange(40), "image")
    assert {value for key, value in found.items() if not key.endswith("rank")} == {0.0}
    assert {value for key, value in found.items() if key.endswith("rank")} == {40.0}


def test_the_protocol_of_coco_counts_a_caption_for_its_own_image_alone():
    pool = CaptionPool.by_image([("a dog", "a brown dog"), ("a dog", "a cat")])
    assert pool.texts == ["a dog", "a brown dog", "a dog", "a cat"]
    images, embeddings = np.eye(4, dtype=np.float32)[[0, 3]], np.eye(4, dtype=np.float32)[[0, 1, 0, 3]]
    found, _ = retrieval_metrics(images, embeddings, pool.image_labels, pool.text_labels, "video")
    # The first finds its caption, but the same words belong to the second as well: a tie, so rank 2; texts: 1, 2, 2, 1
    assert found["video_to_text_r1"] == 0.5 and found["video_to_text_mean_rank"] == 1.5
    assert found["text_to_video_r1"] == 0.5 and found["text_to_video_median_rank"] == 1.5
    assert found["video_to_text_r5"] == found["text_to_video_r5"] == 1


def test_mean_rank_is_scikit_learn_s_coverage_where_one_answer_is_right():
    rng = np.random.default_rng(1)
    images, texts = rng.integers(-1, 2, (2, 50, 4)).astype(np.float32)  # few distinct scores: many ties
    found, _ = retrieval_metrics(images, texts, np.arange(50)[:, None], np.arange(50), "image")
    for way, scores in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T)):
        assert found[f"{way}_mean_rank"] == pytest.approx(sklearn_metrics.coverage_error(np.eye(50), scores))


def test_no_pictures_give_no_numbers():
    nothing = np.zeros((0, 4), np.float32)
    found, _ = retrieval_metrics(nothing, nothing, np.zeros((0, 1), np.int64), np.zeros(0, np.int64), "image")
    assert np.isnan(list(found.values())).all()


def dataset(captions, grammar) -> EvaluationDataset:
    return EvaluationDataset("x", EvaluationDatasetConfig(), np.zeros((len(captions), 2, 2, 3)), captions, grammar)


def test_pool_holds_each_text_once_and_joins_equal_meanings():
    meanings = {"a three": 3, "one three": 3, "a four": 4}
    captions = [("a three",), ("one three", "A  dog"), ("a four",), ("a three", "a dog")]
    pool = CaptionPool.by_meaning(dataset(captions, meanings.get), captions)
    assert pool.texts == ["a three", "one three", "A  dog", "a four", "a dog"]
    three, dog, four = pool.text_labels[[0, 2, 3]]
    np.testing.assert_array_equal(pool.text_labels, [three, three, dog, four, dog])
    assert [set(row) - {NO_LABEL} for row in pool.image_labels] == [{three}, {three, dog}, {four}, {three, dog}]


def test_a_text_never_equals_a_parse_and_free_texts_agree_but_for_case_and_spaces():
    one = dataset([("x",)], {"a dog": "dog"}.get)
    assert one.meaning("dog") != one.meaning("a dog") and one.meaning("A  cat") == one.meaning("a cat")
    free = dataset([("x",)], None)
    assert free.meaning(" Shade  3") == free.meaning("shade 3") != free.meaning("shade 4")
