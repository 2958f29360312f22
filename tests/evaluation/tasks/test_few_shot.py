"""Few-shot classification of embeddings in known clusters."""

import dataclasses

import numpy as np
import pytest

from coca_jax.config import FewShotConfig
from coca_jax.evaluation.dataset import Classification, EvaluationDataset, TrainingImages
from coca_jax.evaluation.predict import TextClassifiers, predict
from coca_jax.evaluation.tasks import few_shot
from coca_jax.evaluation.tasks.few_shot import FewShotClassification, few_shot_results
from coca_jax.pages.blocks import Chart, Table, Tiles
from tests.evaluation.conftest import Axes, normalised
from tests.evaluation.fakes import blocks, evaluate, with_tasks

CLASSES, EACH, HELD_OUT = 3, 40, 60
NAMES = ("ant", "bee", "cow")


def pictures(numbers) -> np.ndarray:
    return np.broadcast_to(np.array(numbers, np.uint8)[:, None, None, None], (len(numbers), 4, 4, 3)).copy()


@pytest.fixture
def coca() -> Axes:
    """Embeds picture i as a noisy corner of the class i % 3; 180 pictures."""
    rng = np.random.default_rng(0)
    corners = np.eye(8)[np.arange(HELD_OUT + CLASSES * EACH) % CLASSES]
    texts = dict(zip(NAMES, normalised(np.eye(8)[[1, 0, 2]]), strict=True))  # the first two are mixed up
    return Axes(normalised(corners + rng.normal(size=corners.shape) * 0.35), texts)


def dataset(*tasks: str, training=None, images=None, **few_shot_keys) -> EvaluationDataset:
    """Pictures 0 to 59 are held out, 60 to 179 train."""
    config = with_tasks(*(tasks or ("few_shot",)), few_shot=FewShotConfig(**few_shot_keys))
    held_out = np.arange(HELD_OUT)
    task = Classification("animal", NAMES, ("{}",), held_out, held_out % CLASSES)
    targets = np.arange(CLASSES * EACH) % CLASSES if training is None else training
    images = pictures(np.arange(HELD_OUT, HELD_OUT + CLASSES * EACH)) if images is None else images
    return EvaluationDataset(
        "farm",
        config,
        pictures(held_out),
        [("x",)] * HELD_OUT,
        classifications=(task,),
        training=TrainingImages(images, {"animal": targets}),
    )


def results(coca, one: EvaluationDataset):
    predictions = predict(coca, one, FewShotClassification().needs(one), TextClassifiers(coca))
    return few_shot_results(one, predictions, one.classifications[0])


def test_accuracy_grows_with_the_training_images(coca):
    result = evaluate(coca, dataset(shots=(20, 1, 5, 0), repeats=8))
    keys = [f"few_shot_animal_{key}" for key in ("k1", "k1_std", "k5", "k5_std", "k20", "k20_std", "all")]
    assert [key for key in result.metrics if "few" in key] == [f"farm/{key}" for key in keys]
    one, five, twenty, every = (result.metrics[f"farm/few_shot_animal_{key}"] for key in ("k1", "k5", "k20", "all"))
    assert 0.5 < one < five < min(twenty, every) and max(twenty, every) < 1
    assert result.metrics["farm/few_shot_animal_k1_std"] > result.metrics["farm/few_shot_animal_k20_std"] > 0
    assert not result.notes


def test_mean_and_deviation_are_of_the_draws_and_these_follow_from_the_seed(coca):
    (one,) = results(coca, dataset(shots=(2,), repeats=4))
    assert one.images == 2 * CLASSES and len(one.accuracies) == 4 and len(set(one.accuracies)) > 1
    metrics = evaluate(coca, dataset(shots=(2,), repeats=4)).metrics
    assert metrics["farm/few_shot_animal_k2"] == pytest.approx(np.mean(one.accuracies))
    assert metrics["farm/few_shot_animal_k2_std"] == pytest.approx(np.std(one.accuracies))
    assert results(coca, dataset(shots=(2,), repeats=4)) == [one]
    assert results(coca, dataset(shots=(2,), repeats=4, seed=1)) != [one]
    assert results(coca, dataset(shots=(9, 2), repeats=4))[0] == one  # whatever else is measured


def test_a_draw_takes_k_images_of_each_class_and_never_a_held_out_one(coca, monkeypatch):
    drawn = []

    def record(embeddings, targets, held_out, logistic_c):
        drawn.append((embeddings, targets))
        return np.zeros(len(held_out), np.int64)

    monkeypatch.setattr(few_shot, "_predicted", record)
    results(coca, dataset(shots=(3, 5), repeats=2))
    assert [np.bincount(targets).tolist() for _, targets in drawn] == [[3] * 3] * 2 + [[5] * 3] * 2
    known = {row.tobytes(): i for i, row in enumerate(coca._images_ME)}
    places = [{known[row.tobytes()] for row in embeddings} for embeddings, _ in drawn]
    assert all(min(own) >= HELD_OUT for own in places)
    assert places[0] < places[2] and places[1] < places[3] and places[0] != places[1]  # nested by the draw's number
    for embeddings, targets in drawn:
        assert [known[row.tobytes()] % CLASSES for row in embeddings] == targets.tolist()


def test_training_images_are_shown_to_the_model_once(coca):
    shown, embed = [], coca.embed_images
    coca.embed_images = lambda images: shown.append(len(images)) or embed(images)
    evaluate(coca, dataset(shots=(1, 2, 0), repeats=3))
    assert sorted(shown) == [HELD_OUT, CLASSES * EACH]


def test_the_baseline_is_zero_shot_if_that_is_measured_or_else_the_most_frequent_class(coca):
    alone = evaluate(coca, dataset(shots=(1,)))
    assert alone.baselines["farm/few_shot_animal_k1"] == pytest.approx(1 / 3)
    both = evaluate(coca, dataset("classification", "few_shot", shots=(1,)))
    zero_shot = both.metrics["farm/zero_shot_animal"]
    assert zero_shot < 0.5 and both.baselines["farm/few_shot_animal_k1"] == zero_shot
    assert [tile.baseline_name for (tiles,) in [blocks(both, Tiles)] for tile in tiles.tiles] == ["chance", "zero-shot"]


def test_classes_with_fewer_training_images_or_none_train_with_what_there_is(coca):
    targets = np.arange(CLASSES * EACH) % CLASSES
    targets[(targets == 0) & (np.arange(len(targets)) > 9)] = -1  # of ants four are left
    targets[targets == 2] = -1
    result = evaluate(coca, dataset(training=targets, shots=(5,)))
    assert result.notes == [
        "few_shot: 1 of 3 classes of farm by 'animal' have fewer than 5 training images and train with those",
        "few_shot: 1 of 3 classes of farm by 'animal' have no training image and are never the answer",
    ]
    assert 0.4 < result.metrics["farm/few_shot_animal_k5"] <= 2 / 3
    only_bees = np.where(targets == 1, 1, -1)
    assert evaluate(coca, dataset(training=only_bees, shots=(5,))).metrics["farm/few_shot_animal_k5"] == pytest.approx(
        1 / 3
    )
    nothing = evaluate(coca, dataset(training=np.full_like(targets, -1), shots=(5,)))
    assert set(nothing.metrics) == {"farm/images"} and "no training image of farm" in nothing.notes[0]


def test_of_several_right_classes_any_counts(coca):
    one = dataset(shots=(5,))
    (task,) = one.classifications
    every = np.broadcast_to(np.arange(CLASSES), (HELD_OUT, CLASSES))
    anything = dataclasses.replace(one, classifications=(dataclasses.replace(task, targets=every),))
    assert evaluate(coca, anything).metrics["farm/few_shot_animal_k5"] == 1


def test_a_training_image_that_cannot_be_read_is_left_out(coca):
    class Shelf:
        def __init__(self, images, broken):
            self._images, self._broken, self.shape, self.unreadable = images, broken, images.shape, {}

        def __len__(self):
            return len(self._images)

        def __getitem__(self, rows):
            self.unreadable |= {row: "not an image" for row in rows.tolist() if row in self._broken}
            return self._images[rows]

    images = pictures(np.arange(HELD_OUT, HELD_OUT + CLASSES * EACH))
    broken = range(0, CLASSES * EACH - 8)
    shelf = dataset(images=Shelf(images, broken), shots=(0,))
    targets = np.where(np.isin(np.arange(CLASSES * EACH), broken), -1, np.arange(CLASSES * EACH) % CLASSES)
    (some,), (without,) = results(coca, shelf), results(coca, dataset(training=targets, shots=(0,)))
    assert some.images == without.images == 8 and some.accuracies == without.accuracies


def test_the_report_has_a_table_and_a_chart_by_k(coca):
    result = evaluate(coca, dataset(shots=(1, 5, 0), repeats=2))
    (table,) = blocks(result, Table)
    assert [row[0] for row in table.rows] == ["1", "5", "all"] and [row[3] for row in table.rows] == ["3", "15", "120"]
    (chart,) = blocks(result, Chart)
    assert [curve.name for curve in chart.curves] == ["few-shot", "most frequent class"]
    assert chart.readings["step"] == ["1", "5"]
