"""Metrics of several datasets together: the mean of a group, and ImageNet-C's mean corruption error."""

from collections.abc import Mapping, Sequence

import numpy as np

from coca_jax.evaluation.dataset import AnyDataset
from coca_jax.evaluation.tasks.base import DatasetResult, metric_text
from coca_jax.pages.blocks import Table, Text
from coca_jax.presets.imagenet import ALEXNET_ERRORS, SEVERITIES

_COUNTS = ("images", "texts", "distinct_captions", "distinct_meanings", "unreadable")  # metrics that have no mean
_ACCURACY = "zero_shot_class"  # of which the corruption error is


def group_results(datasets: Sequence[AnyDataset], results: Sequence[DatasetResult]) -> list[DatasetResult]:
    """For each group the means of the metrics that all its datasets have; none if one of them failed."""
    groups: dict[str, list[DatasetResult]] = {}
    for dataset, result in zip(datasets, results, strict=True):
        if dataset.config.group:
            groups.setdefault(dataset.config.group, []).append(result)
    return [_group_result(name, members) for name, members in groups.items() if not any(one.failed for one in members)]


def _group_result(group: str, members: Sequence[DatasetResult]) -> DatasetResult:
    rows: dict[str, dict[str, float]] = {}
    for one in members:
        rows[one.name] = {key.removeprefix(f"{one.name}/"): value for key, value in one.metrics.items()}
    first, *others = rows.values()
    shared = [key for key in first if key not in _COUNTS and all(key in row for row in others)]
    means = {key: float(np.mean([row[key] for row in rows.values()])) for key in shared}
    errors = {name.removeprefix(f"{group}_"): 1 - row[_ACCURACY] for name, row in rows.items() if _ACCURACY in row}
    if all(f"{kind}_{severity}" in errors for kind in ALEXNET_ERRORS for severity in SEVERITIES):
        means["mean_corruption_error"] = mean_corruption_error(errors)
    table = Table((), [(key.replace("_", " "), metric_text(key, value)) for key, value in means.items()], "Means")
    return DatasetResult(
        name=group,
        metrics={f"{group}/{key}": value for key, value in {**means, "datasets": len(members)}.items()},
        blocks=[Text(f"The mean of {len(members):,} datasets.", "lead"), table],
        is_group=True,
    )


def mean_corruption_error(errors: Mapping[str, float]) -> float:
    """mCE: over ImageNet-C's corruptions the mean of the model's error, divided by AlexNet's, which thus has 1.

    Errors are shares of wrong answers by corruption and severity, such as "fog_3" (arXiv 1903.12261, §4.1).
    """
    own = {kind: np.mean([errors[f"{kind}_{severity}"] for severity in SEVERITIES]) for kind in ALEXNET_ERRORS}
    return float(np.mean([own[kind] / error for kind, error in ALEXNET_ERRORS.items()]))
