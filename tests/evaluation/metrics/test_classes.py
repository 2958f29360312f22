import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics import classes
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


def predictions(scores, targets, first=None) -> classes.ClassPredictions:
    every = np.arange(np.shape(scores)[1])
    return classes.predict_classes(scores, targets, every, every if first is None else first)


def test_predictions_are_the_best_scores():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(90, 20)).astype(np.float32), rng.integers(0, 20, 90)
    found = predictions(scores, targets)
    np.testing.assert_array_equal(found.predicted, scores.argmax(axis=1))
    np.testing.assert_allclose(found.margins, scores.max(axis=1) - scores[np.arange(90), targets], atol=1e-6)
    np.testing.assert_array_equal(found.ranks == 0, found.predicted == targets)
    parts = [predictions(scores[rows], targets[rows]) for rows in (slice(0, 7), slice(7, 90))]
    np.testing.assert_array_equal(classes.joined(parts).ranks, found.ranks)


def test_ties_count_as_wrong_in_scores_too():
    assert (predictions(np.ones((3, 4), np.float32), np.array([0, 1, 2])).ranks == 3).all()


def test_of_equal_names_the_first_is_right_and_other_texts_count_against_the_model():
    texts = [("a",), ("b",), ("a",), ("c",)]
    first = classes.first_equal(texts)
    assert first.tolist() == [0, 1, 0, 3]
    scores = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [np.nan, 0, np.nan, 0]], np.float32)
    found = predictions(scores, np.array([0, 2, 0, 0]), first)
    assert found.ranks.tolist() == [0, 1, 1, 4]  # an argmax; its second; b ties; nothing is known
    both = predictions(scores[:1], np.array([[0, 2]]), first)
    assert both.ranks.tolist() == [0]


def test_probabilities_of_classes_add_up_and_equal_classes_tie():
    scores = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    members = [[0], [1, 3], [2], [3, 1], [1, 3]]
    found = classes.member_probabilities(scores, members, 0.5)
    np.testing.assert_allclose(found[:, :3].sum(axis=1), 1)
    assert found.shape == (5, 5) and (found[:, 1] == found[:, 4]).all()
    assert (classes.member_probabilities(scores, members, 0.01) > 0).all()  # or the least probable would tie
    assert classes.member_probabilities(np.zeros((0, 2), np.float32), [[0], [1]], 1.0).shape == (0, 2)


def test_confusion_matrix_equals_scikit_learn():
    rng = np.random.default_rng(1)
    targets, predicted = rng.integers(0, 7, 500), rng.integers(0, 6, 500)  # class 6 is never predicted
    expected = sklearn_metrics.confusion_matrix(targets, predicted, labels=np.arange(7))
    found = classes.confusion_matrix(targets, predicted, 7)
    np.testing.assert_array_equal(found, expected)
    np.fill_diagonal(found, 0)
    pairs = classes.confused_pairs(targets, predicted)
    assert {(t, p): n for t, p, n in pairs} == {(t, p): found[t, p] for t, p in np.argwhere(found)}
    counts = [count for _, _, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert classes.confused_pairs(targets, targets) == []
