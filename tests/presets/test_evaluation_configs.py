import ast
import importlib.util
import pathlib
import re

import pytest

from coca_jax import config as config_lib
from coca_jax.evaluation.runner import evaluate_datasets
from tests.evaluation import tiny_coca
from tests.evaluation.fakes import opened

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs/eval"


def _values(name: str, arg: str | None):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


def get_config(name: str, arg: str | None = None) -> config_lib.EvaluationConfig:
    values = _values(name, arg)
    for one in values.datasets.values():
        if one.dataset.format != "digit_scenes":
            one.dataset.path = one.dataset.path or "somewhere"
    return config_lib.evaluation_from_config_dict(values)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_each_config_is_whole_but_for_the_place_of_its_records(name):
    config = get_config(name)
    assert config.datasets
    for key, one in config.datasets.items():
        assert one.tasks, key
        assert one.download or one.dataset.format in ("digit_scenes", "tars")


def test_the_emoji_by_name_group_and_subgroup_and_the_unseen_concepts(shared_data):
    config = get_config("emoji", str(shared_data / "data/emoji"))
    emoji, labels, likelihood, unseen, among_all = opened(config)
    counts = {task.name: len(task.labels) for task in emoji.classifications}
    assert len(emoji.images) == 1_622 and counts == {"name": 1_636, "group": 8, "subgroup": 95}
    assert len(unseen.images) == len(unseen.classifications[0].labels) == len(among_all.images) == 80
    assert len(among_all.classifications[0].labels) == 1_636 and len(likelihood.classifications[0].labels) == 8
    task, *described = emoji.classifications
    assert not task.members and not any(one.members for one in labels.classifications)
    for one, known in zip(described, labels.classifications, strict=True):  # by all names that trained, and by no other
        names = {name for own in one.members for name in own}
        assert len(names) == 1_556 and not names & {own[0] for own in unseen.captions}
        assert one.name == known.name and one.labels == known.labels and all(one.members)
    assert all(task.labels[target] == own[0] for target, own in zip(task.targets, emoji.captions, strict=True))
    assert not emoji.unreadable and emoji.images[[3]].shape == (1, 16, 16, 3) and not emoji.images.unreadable


def test_digit_scenes_are_a_dataset_by_name():
    few = config_lib.EvaluationDatasetConfig(examples=20, tasks=("classification",))
    (dataset,) = opened(config_lib.EvaluationConfig(datasets={"few": few}), size=40)
    assert dataset.name == "few" and len(dataset.images) == 20
    assert [task.name for task in dataset.classifications] == ["digit", "color"]


def test_coco_from_a_folder_as_the_config_s_docstring_says(shared_data, tmp_path):
    text = " ".join((FOLDER / "coco.py").read_text().split('"""')[1].split())
    changes = dict(
        re.findall(r"--config\.(datasets\.coco\.[\w.]+)=(\([^)]*\)|[^\s`\"]+)", text.partition("So does")[0])
    )
    names = ("dataset.format", "dataset.path", "dataset.evaluation_files", "captioning.image_id")
    assert set(changes) == {f"datasets.coco.{name}" for name in names}
    changes["datasets.coco.dataset.path"] = str(shared_data / "data/coco_photos")
    changes["datasets.coco.dataset.evaluation_files"] = ast.literal_eval(
        changes["datasets.coco.dataset.evaluation_files"]
    )
    values = _values("coco", None)
    values.update_from_flattened_dict(changes)
    values.datasets.coco.examples, values.datasets.coco.retrieval.captions_per_image = 6, 2
    config = config_lib.evaluation_from_config_dict(values)
    (result,) = evaluate_datasets(tiny_coca.coca(), opened(config, size=tiny_coca.SIZE), gallery=0)
    assert (
        result.metrics["coco/images"] == len(result.submissions["captions"]) == 6 and result.metrics["coco/texts"] == 12
    )
    assert "coco/caption_cider" in result.metrics and 285 in result.submissions["captions"]
