import dataclasses
import pathlib

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.text import class_names as class_files
from coca_jax.evaluation import zero_shot
from coca_jax.evaluation.classifiers import Classifiers
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.metrics import ranking
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
        "random", pictures, [("x",)] * IMAGES, str, (task,), asked=EvaluationDatasetConfig(tasks=("classification",))
    )
    return Axes(images_ME, dict(zip(names, texts_CE, strict=True))), held_out, images_ME @ texts_CE.T


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
        "random/images",
        *(f"random/zero_shot_class{key}" for key in ("", "_top5", "_top10", "_mean_per_class")),
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
    assert np.mean(result.classifications[0].targets == result.classifications[0].predicted) == pytest.approx(
        hit.mean()
    )


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
    task = dataclasses.replace(
        held_out.classifications[0], labels=["a", "b"], synonyms=[("class 0", "class 1"), ("class 2",)]
    )
    table = {name: coca.embed_texts([name])[0] for name in ("class 0", "class 1", "class 2")}
    expected = normalised(np.stack([table["class 0"] + table["class 1"], table["class 2"]]))
    np.testing.assert_allclose(Classifiers(coca)(task), expected, atol=1e-6)


def test_a_class_of_several_members_is_as_probable_as_all_of_them(random_task):
    coca, held_out, scores = random_task
    targets, numbers = held_out.classifications[0].targets, [[0, 1, 2, 3], [4], [5, 6, 2], list(range(7, CLASSES))]
    members = [[f"class {i}" for i in own] for own in numbers]
    task = dict(labels=list("abcd"), members=members, targets=targets % 4)
    predicted = []
    for coca.temperature in (0.3, 0.01):
        shares = np.exp(scores.astype(np.float64) / coca.temperature)
        expected = np.stack([shares[:, own].sum(axis=1) for own in numbers], axis=1).argmax(axis=1)
        (outcome,) = evaluate(coca, with_task(held_out, **task)).classifications
        np.testing.assert_array_equal(outcome.predicted, expected)
        assert outcome.candidates == 4 and outcome.accuracy == np.mean(expected == targets % 4)
        predicted.append(expected)
    assert (predicted[0] != predicted[1]).any()  # the warmer, the more the other members count
    (among,) = evaluate(
        coca,
        with_task(
            held_out,
            **task
            | dict(
                candidates=np.array([1, 3]), indices=np.flatnonzero(targets % 2), targets=targets[targets % 2 == 1] % 4
            ),
        ),
    ).classifications
    assert set(among.predicted) == {1, 3} and among.candidates == 2


def test_probabilities_of_classes_add_up_and_equal_classes_tie():
    scores = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    members = [[0], [1, 3], [2], [3, 1], [1, 3]]
    found = zero_shot.probabilities_of(members, 0.5)(scores)
    np.testing.assert_allclose(found[:, :3].sum(axis=1), 1)
    assert found.shape == (5, 5) and (found[:, 1] == found[:, 4]).all()
    assert (zero_shot.probabilities_of(members, 0.01)(scores) > 0).all()  # or the least probable would tie
    assert zero_shot.probabilities_of([[0], [1]], 1.0)(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_of_equal_names_the_first_is_right_and_other_texts_count_against_the_model():
    texts = [("a",), ("b",), ("a",), ("c",)]
    first = zero_shot.same_texts(texts)
    assert first.tolist() == [0, 1, 0, 3]
    scores = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [np.nan, 0, np.nan, 0]], np.float32)
    found = zero_shot.from_scores(scores, np.array([0, 2, 0, 0]), first=first)
    assert found.ranks.tolist() == [0, 1, 1, 4]  # an argmax; its second; b ties; nothing is known
    both = zero_shot.from_scores(scores[:1], np.array([[0, 2]]), first=first)
    assert both.ranks.tolist() == [0]


def test_imagenet_s_equal_names_cost_two_classes_and_not_four(shared_data, caplog):
    names = [own[0] for own in class_files.class_names(f"{shared_data}/data/classnames/en_classnames.json:imagenet1k")]
    vectors = normalised(np.random.default_rng(0).normal(size=(len(names), 24)))
    table = dict(zip(reversed(names), vectors[::-1], strict=True))  # of equal names, the first one's vector
    pictures = np.zeros((len(names), 1, 1, 3), np.uint8)
    task = Classification("class", names, ("{}",), np.arange(len(names)), np.arange(len(names)))
    asked = EvaluationDatasetConfig(tasks=("classification",))
    coca = Axes(np.stack([table[name] for name in names]), table)
    coca.embed_images = lambda images: coca._images_ME[: len(images)]
    coca.batch_size = len(names)
    result = evaluate(coca, EvaluationSet("imagenet", pictures, [("x",)] * len(names), str, (task,), asked=asked))
    assert result.metrics["imagenet/zero_shot_class"] == pytest.approx(0.998)
    (note,) = result.notes
    assert note.startswith("2 classes have the name of another (") and "missile" in note


def test_equal_classes_tie_exactly_whatever_the_shape_of_the_product():
    rng = np.random.default_rng(0)
    for images, classes, width in ((1, 5, 70), (37, 1_003, 96), (130, 33, 513)):
        classifier = normalised(rng.normal(size=(classes, width)))
        classifier[-1] = classifier[1] = classifier[0]
        scores = zero_shot._scores(normalised(rng.normal(size=(images, width))), classifier)
        assert scores.shape == (images, classes)
        assert (scores[:, 0] == scores[:, 1]).all() and (scores[:, 0] == scores[:, -1]).all()


def test_a_kept_classifier_that_cannot_be_read_or_written_is_made_anew(random_task, monkeypatch, caplog):
    class Denied(type(pathlib.Path())):
        def exists(self):
            return True

        def read_bytes(self):
            raise PermissionError("denied")

        write_bytes = mkdir = lambda self, *_, **__: self.read_bytes()

    coca, held_out, _ = random_task
    (task,) = held_out.classifications
    monkeypatch.setattr("coca_jax.evaluation.classifiers._WORTH_KEEPING", 12)
    np.testing.assert_array_equal(Classifiers(coca, Denied("/x"))(task), Classifiers(coca)(task))
    assert "cannot be read and is made anew: denied" in caplog.text and "is not kept for another time" in caplog.text
