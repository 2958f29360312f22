import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from coca_jax.data.text import class_names as class_files
from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.predict import TextClassifiers, predict
from coca_jax.evaluation.tasks.classification import ZeroShotClassification, most_similar
from coca_jax.pages.blocks import Heading, Matrix, Table
from coca_jax.pages.charts import percent
from tests.evaluation.conftest import CLASSES, IMAGES, Axes, normalised
from tests.evaluation.fakes import blocks, evaluate, with_tasks


def with_task(dataset: EvaluationDataset, **changes) -> EvaluationDataset:
    return dataclasses.replace(dataset, classifications=(dataclasses.replace(dataset.classifications[0], **changes),))


def classified(coca, dataset: EvaluationDataset):
    predictions = predict(coca, dataset, ZeroShotClassification().needs(dataset), TextClassifiers(coca))
    return most_similar(dataset.classifications[0], predictions)


def test_top_k_and_classes_equal_scikit_learn(random_task, monkeypatch):
    monkeypatch.setattr("coca_jax.evaluation.tasks.classification._TOP_K", ((5, 10), (10, 11)))
    coca, dataset, scores = random_task
    targets, result = dataset.classifications[0].targets, evaluate(coca, dataset)
    every = np.arange(CLASSES)
    for k, key in ((1, ""), (5, "_top5"), (10, "_top10")):
        expected = sklearn_metrics.top_k_accuracy_score(targets, scores, k=k, labels=every)
        assert result.metrics[f"random/zero_shot_class{key}"] == pytest.approx(expected)
        assert result.baselines[f"random/zero_shot_class{key}"] == pytest.approx(k / CLASSES)
    recalls = sklearn_metrics.recall_score(targets, scores.argmax(axis=1), labels=every[:-1], average=None)
    (accuracies,) = (table for table in blocks(result, Table) if table.caption == "Accuracy of classes")
    assert dict(row[:2] for row in accuracies.rows) == {
        f"class {i}": percent(recall) for i, recall in enumerate(recalls)
    }
    assert result.metrics["random/zero_shot_class_mean_per_class"] == pytest.approx(recalls.mean())
    assert set(result.metrics) == {
        "random/images",
        *(f"random/zero_shot_class{key}" for key in ("", "_top5", "_top10", "_mean_per_class")),
    }


def test_only_candidates_can_be_answered(random_task):
    coca, dataset, scores = random_task
    targets = dataset.classifications[0].targets
    candidates, among = np.array([1, 4, 5, 9]), np.flatnonzero(np.isin(targets, [1, 4, 5, 9]))
    dataset = with_task(dataset, candidates=candidates, indices=among, targets=targets[among])
    result = evaluate(coca, dataset)
    expected = candidates[scores[among][:, candidates].argmax(axis=1)]
    np.testing.assert_array_equal(classified(coca, dataset).predicted, expected)
    assert result.metrics["random/zero_shot_class"] == pytest.approx(np.mean(expected == targets[among]))
    assert result.baselines["random/zero_shot_class"] == pytest.approx(1 / 4)
    assert blocks(result, Heading)[0].detail.startswith("4 classes; ")


def test_of_several_right_classes_any_counts(random_task):
    coca, dataset, scores = random_task
    targets = dataset.classifications[0].targets
    both = np.stack([targets, np.where(targets % 2, -1, (targets + 1) % CLASSES)], axis=1)
    result = evaluate(coca, with_task(dataset, targets=both))
    hit = (both == scores.argmax(axis=1)[:, None]).any(axis=1)
    assert hit.mean() > np.mean(targets == scores.argmax(axis=1))
    assert result.metrics["random/zero_shot_class"] == pytest.approx(hit.mean())
    (matrix,) = blocks(result, Matrix)
    assert np.trace(matrix.counts) == hit.sum() and matrix.counts.sum() == IMAGES


def test_a_class_of_several_members_is_as_probable_as_all_of_them(random_task):
    coca, dataset, scores = random_task
    targets, numbers = dataset.classifications[0].targets, [[0, 1, 2, 3], [4], [5, 6, 2], list(range(7, CLASSES))]
    members = [[f"class {i}" for i in own] for own in numbers]
    task = dict(labels=list("abcd"), members=members, targets=targets % 4)
    predicted = []
    for coca.temperature in (0.3, 0.01):
        shares = np.exp(scores.astype(np.float64) / coca.temperature)
        expected = np.stack([shares[:, own].sum(axis=1) for own in numbers], axis=1).argmax(axis=1)
        np.testing.assert_array_equal(classified(coca, with_task(dataset, **task)).predicted, expected)
        accuracy = evaluate(coca, with_task(dataset, **task)).metrics["random/zero_shot_class"]
        assert accuracy == np.mean(expected == targets % 4)
        predicted.append(expected)
    assert (predicted[0] != predicted[1]).any()  # the warmer, the more the other members count
    odd = np.flatnonzero(targets % 2)
    some = with_task(dataset, **task | dict(candidates=np.array([1, 3]), indices=odd, targets=targets[odd] % 4))
    assert set(classified(coca, some).predicted) == {1, 3}


def test_imagenet_s_equal_names_cost_two_classes_and_not_four(shared_data, caplog):
    names = [own[0] for own in class_files.class_names(f"{shared_data}/data/classnames/en_classnames.json:imagenet1k")]
    vectors = normalised(np.random.default_rng(0).normal(size=(len(names), 24)))
    table = dict(zip(reversed(names), vectors[::-1], strict=True))  # of equal names, the first one's vector
    pictures = np.zeros((len(names), 1, 1, 3), np.uint8)
    task = Classification("class", names, ("{}",), np.arange(len(names)), np.arange(len(names)))
    config = with_tasks("classification")
    coca = Axes(np.stack([table[name] for name in names]), table)
    coca.embed_images = lambda images: coca._images_ME[: len(images)]
    coca.batch_size = len(names)
    result = evaluate(
        coca, EvaluationDataset("imagenet", config, pictures, [("x",)] * len(names), classifications=(task,))
    )
    assert result.metrics["imagenet/zero_shot_class"] == pytest.approx(0.998)
    (note,) = result.notes
    assert note.startswith("2 classes have the name of another (") and "missile" in note
