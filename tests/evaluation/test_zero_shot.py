import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.errors import CocaError
from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.metrics import ranking
from coca_jax.inference.zero_shot import text_classifier


def _embed(texts):
    vectors = np.stack([np.random.default_rng(sum(text.encode())).normal(size=8) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_classifier_is_the_normalised_mean_over_templates():
    labels, templates = ["dog", "{cat}", "a <b>"], ["a {}", "picture of {} {x}"]
    found = text_classifier(_embed, labels, templates)
    mean = np.mean([_embed([f"a {label}", f"picture of {label} {{x}}"]) for label in labels], axis=1)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("labels, templates", [([], ["a {}"]), (["dog"], []), (["dog"], ["a dog"])])
def test_unusable_prompts_are_refused_in_one_sentence(labels, templates):
    with pytest.raises(CocaError):
        text_classifier(_embed, labels, templates)


def test_predictions_equal_the_scores_in_full(monkeypatch):
    monkeypatch.setattr(ranking, "_CHUNK_SCORES", 64)
    rng = np.random.default_rng(0)
    images, classifier = rng.normal(size=(90, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    targets = rng.integers(0, 20, 90)
    found, scores = zero_shot.predict(images, classifier, targets), images @ classifier.T
    np.testing.assert_array_equal(found.predicted, scores.argmax(axis=1))
    np.testing.assert_allclose(found.margins, scores.max(axis=1) - scores[np.arange(90), targets], atol=1e-5)
    np.testing.assert_array_equal(found.ranks == 0, found.predicted == targets)
    expected = sklearn_metrics.top_k_accuracy_score(targets, scores, k=5, labels=np.arange(20))
    assert ranking.hit_rate(found.ranks, 5) == pytest.approx(expected)


def test_confusion_matrix_equals_scikit_learn():
    rng = np.random.default_rng(1)
    targets, predicted = rng.integers(0, 7, 500), rng.integers(0, 6, 500)  # class 6 is never predicted
    expected = sklearn_metrics.confusion_matrix(targets, predicted, labels=np.arange(7))
    found = zero_shot.confusion_matrix(targets, predicted, 7)
    np.testing.assert_array_equal(found, expected)
    np.fill_diagonal(found, 0)
    pairs = zero_shot.confused_pairs(targets, predicted)
    assert {(t, p): n for t, p, n in pairs} == {(t, p): found[t, p] for t, p in np.argwhere(found)}
    counts = [count for _, _, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert zero_shot.confused_pairs(targets, targets) == []
