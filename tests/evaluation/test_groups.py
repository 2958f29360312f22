import re

import numpy as np
import pytest

from coca_jax import config as config_lib
from coca_jax.evaluation import groups
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.results import results_table
from coca_jax.evaluation.tasks.base import DatasetResult
from coca_jax.presets import imagenet as evaluation_recipes
from coca_jax.presets.imagenet import ALEXNET_ERRORS
from tests.evaluation.fakes import digit_dataset

SPREAD = np.array([0.6, 0.8, 1.0, 1.2, 1.4])  # of a corruption's error over its severities


def corrupted(error_of) -> list[DatasetResult]:
    """The group's results for a model with these errors, on the datasets of configs/eval/imagenet_c.py."""
    config = config_lib.evaluation_from_config_dict(evaluation_recipes.imagenet_c(None))
    datasets = [digit_dataset(1, name=name, config=one) for name, one in config.datasets.items()]
    results = []
    for one in datasets:
        kind, _, severity = one.name.removeprefix("imagenet_c_").rpartition("_")
        error = error_of(kind) * SPREAD[int(severity) - 1]
        metrics = {f"{one.name}/zero_shot_class": 1 - error, f"{one.name}/images": 9}
        results.append(DatasetResult(one.name, metrics))
    return groups.group_results(datasets, results)


@pytest.mark.parametrize(
    "error_of, expected",
    [
        (ALEXNET_ERRORS.get, 1.0),
        (lambda kind: ALEXNET_ERRORS["brightness"] / 2 if kind == "brightness" else 0, 0.5 / 15),  # a mean of ratios
        (lambda kind: 0.3, 0.3880354379951605),
    ],
)
def test_the_mean_corruption_error_is_relative_to_alexnet_s(error_of, expected):
    (group,) = corrupted(error_of)
    assert group.metrics["imagenet_c/mean_corruption_error"] == pytest.approx(expected)
    mean = 1 - np.mean([error_of(kind) for kind in ALEXNET_ERRORS])
    assert group.metrics["imagenet_c/zero_shot_class"] == pytest.approx(mean)
    assert group.metrics["imagenet_c/datasets"] == 75 and "imagenet_c/images" not in group.metrics


def test_fewer_sets_have_a_mean_and_no_mean_corruption_error(monkeypatch):
    monkeypatch.setattr(evaluation_recipes, "SEVERITIES", range(1, 5))
    (group,) = corrupted(ALEXNET_ERRORS.get)
    assert set(group.metrics) == {"imagenet_c/zero_shot_class", "imagenet_c/datasets"}
    assert group.metrics["imagenet_c/datasets"] == 60


def test_a_group_s_means_stand_first_on_the_page_and_in_percent(tmp_path):
    (group,) = corrupted(ALEXNET_ERRORS.get)
    one = DatasetResult("fog_1", {"fog_1/zero_shot_class": 0.5, "fog_1/images": 9})
    write_report(tmp_path / "x.html", title="x", results=[one, group], history=[], facts={})
    page = (tmp_path / "x.html").read_text()
    assert page.index('id="dataset-imagenet-c"') < page.index('id="dataset-fog-1"')
    assert "The mean of 75 datasets." in page
    assert re.search(r">mean corruption error</th>\s*<td>100.00 %", page)
    assert "100.00 %" in results_table([group])
