import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.config import HeldOutConfig
from coca_jax.data.evaluation_set import Classification, EvaluationSet
from coca_jax.evaluation import ranking, zero_shot
from coca_jax.evaluation.classifiers import Classifiers
from coca_jax.evaluation.suite import evaluate

CLASSES, IMAGES = 12, 200


class Axes:
    """Embeds pictures and texts as rows of a table: picture and text i are known by their number."""

    can_embed, can_caption, batch_size, digest = True, False, 16, "0123456789abcdef"

    def __init__(self, images_ME: np.ndarray, texts: dict[str, np.ndarray]):
        self._images_ME, self._texts, self.asked = images_ME, texts, 0

    def embed_images(self, images):
        return self._images_ME[images[np.arange(len(images))][:, 0, 0, 0]]

    def embed_texts(self, texts, long_text="error"):
        self.asked += len(texts)
        return np.stack([self._texts[text] for text in texts])


def normalised(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def random_task():
    rng = np.random.default_rng(0)
    images_ME, texts_CE = normalised(rng.normal(size=(IMAGES, 8))), normalised(rng.normal(size=(CLASSES, 8)))
    names = [f"class {i}" for i in range(CLASSES)]
    targets = rng.integers(0, CLASSES - 1, IMAGES)  # the last class has no picture
    pictures = np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, 4, 4, 3)).copy()
    task = Classification("class", names, ("{}",), np.arange(IMAGES), targets)
    held_out = EvaluationSet(
        "random", pictures, [("x",)] * IMAGES, str, (task,), asked=HeldOutConfig(tasks=("classification",))
    )
    return Axes(images_ME, dict(zip(names, texts_CE))), held_out, images_ME @ texts_CE.T


def with_task(held_out: EvaluationSet, **changes) -> EvaluationSet:
    return dataclasses.replace(held_out, classifications=(dataclasses.replace(held_out.classifications[0], **changes),))


def test_top_k_and_classes_equal_scikit_learn(random_task, monkeypatch):
    monkeypatch.setattr("coca_jax.evaluation.classification._TOP10_ABOVE", 11)
    coca, held_out, scores = random_task
    targets, result = held_out.classifications[0].targets, evaluate(coca, held_out)
    every = np.arange(CLASSES)
    for k, key in ((1, ""), (5, "_top5"), (10, "_top10")):
        expected = sklearn_metrics.top_k_accuracy_score(targets, scores, k=k, labels=every)
        assert result.metrics[f"random/zero_shot_class{key}"] == pytest.approx(expected)
        assert result.chance[f"random/zero_shot_class{key}"] == pytest.approx(k / CLASSES)
    (outcome,) = result.classifications
    recalls = sklearn_metrics.recall_score(targets, scores.argmax(axis=1), labels=every[:-1], average=None)
    np.testing.assert_allclose(outcome.per_class[:-1], recalls)
    assert np.isnan(outcome.per_class[-1])
    assert result.metrics["random/zero_shot_class_mean_per_class"] == pytest.approx(recalls.mean())
    assert set(result.metrics) == {
        "random/images", *(f"random/zero_shot_class{key}" for key in ("", "_top5", "_top10", "_mean_per_class"))
    }


def test_only_candidates_can_be_answered(random_task):
    coca, held_out, scores = random_task
    targets = held_out.classifications[0].targets
    candidates, among = np.array([1, 4, 5, 9]), np.flatnonzero(np.isin(targets, [1, 4, 5, 9]))
    held_out = with_task(held_out, candidates=candidates, indices=among, targets=targets[among])
    result = evaluate(coca, held_out)
    expected = candidates[scores[among][:, candidates].argmax(axis=1)]
    np.testing.assert_array_equal(result.classifications[0].predicted, expected)
    assert result.metrics["random/zero_shot_class"] == pytest.approx(np.mean(expected == targets[among]))
    assert result.chance["random/zero_shot_class"] == pytest.approx(1 / 4) and result.classifications[0].candidates == 4


def test_of_several_right_classes_any_counts(random_task):
    coca, held_out, scores = random_task
    targets = held_out.classifications[0].targets
    both = np.stack([targets, np.where(targets % 2, -1, (targets + 1) % CLASSES)], axis=1)
    result = evaluate(coca, with_task(held_out, targets=both))
    hit = (both == scores.argmax(axis=1)[:, None]).any(axis=1)
    assert hit.mean() > np.mean(targets == scores.argmax(axis=1))
    assert result.metrics["random/zero_shot_class"] == pytest.approx(hit.mean())
    assert np.mean(result.classifications[0].targets == result.classifications[0].predicted) == pytest.approx(hit.mean())


def test_ties_count_as_wrong_in_scores_too():
    found = zero_shot.from_scores(np.ones((3, 4), np.float32), np.array([0, 1, 2]))
    assert ranking.hit_rate(found.ranks, 1) == ranking.hit_rate(found.ranks, 3) == 0


def test_a_classifier_is_built_once_and_kept_for_its_model_alone(random_task, tmp_path, monkeypatch):
    coca, held_out, _ = random_task
    (task,) = held_out.classifications
    monkeypatch.setattr("coca_jax.evaluation.classifiers._WORTH_KEEPING", 12)
    classifiers = Classifiers(coca, tmp_path)
    first = classifiers(task)
    np.testing.assert_array_equal(classifiers(task), first)
    assert coca.asked == CLASSES
    np.testing.assert_array_equal(Classifiers(coca, tmp_path)(task), first)  # from the file
    assert coca.asked == CLASSES
    (file,) = (tmp_path / "classifiers").iterdir()
    file.write_bytes(b"\x93NUMPY no array")
    np.testing.assert_array_equal(Classifiers(coca, tmp_path)(task), first)
    assert coca.asked == 2 * CLASSES
    coca.digest = "another"
    Classifiers(coca, tmp_path)(task)
    Classifiers(coca, tmp_path)(dataclasses.replace(task, templates=("{}", "{}")))
    assert coca.asked == 5 * CLASSES


def test_synonyms_count_alike(random_task):
    coca, held_out, _ = random_task
    task = dataclasses.replace(held_out.classifications[0], labels=["a", "b"],
                               synonyms=[("class 0", "class 1"), ("class 2",)])
    table = {name: coca.embed_texts([name])[0] for name in ("class 0", "class 1", "class 2")}
    expected = normalised(np.stack([table["class 0"] + table["class 1"], table["class 2"]]))
    np.testing.assert_allclose(Classifiers(coca)(task), expected, atol=1e-6)
