"""The training images of few-shot classification: which records, which classes, and what is wrong with them."""

import numpy as np
import pytest

from coca_jax.config import EvaluationConfig, EvaluationDatasetConfig, FewShotConfig
from coca_jax.errors import CocaError
from coca_jax.evaluation.open_dataset import check_same_datasets
from tests.data import builders
from tests.evaluation import tiny_coca
from tests.evaluation.fakes import evaluate, opened


def open_one(config: EvaluationDatasetConfig):
    (dataset,) = opened(EvaluationConfig(datasets={"greys": config}), ("greys",))
    return dataset


def shades(dataset) -> list[int]:
    """The numbers of the training pictures, which are their greys."""
    return dataset.training.images[np.arange(len(dataset.training.images))][:, 0, 0, 0].tolist()


KINDS = ("dark", "mid", "light", "white")


@pytest.fixture
def tars(tmp_path) -> EvaluationDatasetConfig:
    """Shades 0 to 39 train, four kinds by number modulo 4; 40 to 49 are evaluated, of the first three kinds."""
    rows = [row for i in range(40) for row in builders.members([i], kind=KINDS[i % 4], half=("low", "high")[i // 20])]
    builders.write_tar(tmp_path / "train.tar", rows)
    rows = [row for i in range(40, 50) for row in builders.members([i], kind=KINDS[i % 3], half="low")]
    builders.write_tar(tmp_path / "held.tar", rows)
    return builders.evaluation_dataset(
        format="tars",
        path=str(tmp_path),
        evaluation_files=("held*",),
        label_field="kind",
        tasks=("few_shot",),
        shots=(1, 2),
        repeats=3,
    )


def test_of_each_class_enough_is_read_for_all_draws_and_of_others_nothing(tars):
    dataset = open_one(tars)
    (task,) = dataset.classifications
    targets = dataset.training.targets["class"]
    assert list(task.labels) == ["dark", "light", "mid"] and np.bincount(targets).tolist() == [6, 6, 6]
    assert [KINDS[shade % 4] for shade in shades(dataset)] == [task.labels[i] for i in targets]
    assert shades(open_one(tars)) == shades(dataset) == sorted(shades(dataset))
    assert shades(open_one(builders.with_keys(tars, seed=1))) != shades(dataset)
    every = open_one(builders.with_keys(tars, shots=(1, 0)))
    assert shades(every) == [shade for shade in range(40) if KINDS[shade % 4] != "white"]
    some = open_one(builders.with_keys(builders.with_keys(tars, shots=(0,)), few_shot=FewShotConfig((0,), examples=5)))
    assert shades(some) == [0, 10, 20, 29]  # of 0, 10, 20, 29 and 39, which is white
    assert open_one(builders.with_keys(tars, tasks=("classification",))).training is None


def test_selections_hold_for_training_images_too(tars):
    low = open_one(builders.with_keys(tars, shots=(0,), only=("half=low",)))
    assert max(shades(low)) < 20
    excluded = open_one(builders.with_keys(tars, shots=(0,), exclude=("kind=mid",)))
    assert {KINDS[shade % 4] for shade in shades(excluded)} == {"dark", "light"}
    with pytest.raises(CocaError, match=r"greys: none of 10 training records of .* has a class of the held-out ones"):
        open_one(builders.with_keys(tars, only=("kind=white", "number=41"), label_field="name"))
    with pytest.raises(
        CocaError, match=r"greys: the held-out records have one class by 'class', and few_shot needs two"
    ):
        open_one(builders.with_keys(tars, only=("kind=mid",)))
    with pytest.raises(CocaError, match=r"greys: none of the 40 records of .* is left for train: change"):
        open_one(builders.with_keys(tars, exclude=("half=low", "half=high")))


def test_classes_with_names_are_answers_without_a_held_out_image_too(tars, tmp_path):
    (tmp_path / "names.txt").write_text("white\nlight\nmid\ndark\n")
    named = builders.with_keys(tars, class_names=str(tmp_path / "names.txt"))
    dataset = open_one(named)
    (task,) = dataset.classifications
    assert [task.labels[i] for i in dataset.training.targets["class"]] == [KINDS[i % 4] for i in shades(dataset)]
    assert set(dataset.training.targets["class"]) == {0, 1, 2, 3} and set(task.targets) == {1, 2, 3}
    subset = open_one(builders.with_keys(named, class_subset=True))
    assert set(subset.training.targets["class"]) == {1, 2, 3}


def test_several_fields_share_the_images(tars):
    dataset = open_one(builders.with_keys(tars, label_field="", fields=("kind", "half"), shots=(0,)))
    targets = dataset.training.targets
    assert set(targets) == {"kind", "half"}
    known = [shade for shade in range(40) if shade < 20 or KINDS[shade % 4] != "white"]  # by at least one of them
    assert shades(dataset) == known and (targets["kind"] >= 0).sum() == 30
    assert targets["half"].tolist() == [0] * 20 + [-1] * 15


def test_the_whole_evaluation_of_stored_images(tars):
    result = evaluate(tiny_coca.coca(), open_one(tars))
    assert {"greys/few_shot_class_k1", "greys/few_shot_class_k2_std"} <= set(result.metrics)
    assert result.baselines["greys/few_shot_class_k1"] == pytest.approx(0.4) and not result.notes


def test_digit_scenes_draw_from_training_scenes_with_one_digit():
    config = builders.evaluation_dataset(tasks=("few_shot",), shots=(2,), repeats=2, examples=20)
    training, again = open_one(config).training, open_one(config).training
    counts = {name: np.bincount(targets) for name, targets in training.targets.items()}
    assert len(counts["digit"]) == 10 and len(counts["color"]) == 8
    assert min(map(min, counts.values())) == 4 and len(training.images) == counts["digit"].sum()
    np.testing.assert_array_equal(training.images, again.images)
    config = builders.with_keys(config, few_shot=FewShotConfig(examples=30))
    assert len(open_one(config).training.images) == 30


def test_hosts_must_see_the_same_training_images(tars, monkeypatch):
    digests = []
    monkeypatch.setattr("coca_jax.evaluation.open_dataset.hosts.check_same", lambda digest, _: digests.append(digest))
    for only in ((), (), ("half=low",)):
        check_same_datasets([open_one(builders.with_keys(tars, shots=(0,), only=only))])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"evaluation_files": ("*",)}, r"few_shot of .*greys needs records that are not evaluated: name fewer"),
        ({"shots": ()}, "few_shot.shots is empty"),
        ({"label_field": ""}, "is to be classified: name the metadata"),
        ({"shots": (1, -1)}, r"few_shot.shots = \(1, -1\) must be at least 0"),
        ({"shots": (1, 2.5)}, r"few_shot.shots is .*write a tuple of whole numbers such as \(1, 5\)"),
        ({"shots": (True,)}, "write a tuple of whole numbers"),
        ({"tasks": ("classification",), "exclude": ("a=b",)}, "exclude has no effect on an evaluation"),
    ],
)
def test_a_contradiction_is_refused(tars, changes, message):
    with pytest.raises(CocaError, match=message):
        open_one(builders.with_keys(tars, **changes))
