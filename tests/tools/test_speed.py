"""Every stage is measured, of real records, some of them bad."""

import json

import pytest

from coca_jax.config import SourceConfig
from coca_jax.tools import speed
from tests.data import builders
from tests.tools.commands import call


def test_every_stage_of_a_mixture(tmp_path, capsys):
    members = builders.members(range(40))
    members[0] = (members[0][0], b"<html>")
    members[4] = (members[4][0], b" ")  # a caption
    builders.write_tar(tmp_path / "a.tar", members)
    mixture = {"scenes": SourceConfig(), "web": builders.source(format="tars", path=str(tmp_path), holdout=1e-9)}
    config = builders.config(mixture=mixture, max_bad_ratio=0.5, block=64)  # all of them are read at once
    call("speed", config, "--seconds=0", "--json")
    stages = json.loads(capsys.readouterr().out)
    assert list(stages) == ["read web", "view web", "tokenise web", "pipeline", "transfer to cpu"]
    assert stages["read web"]["records"] == 39 and stages["pipeline"]["records"] == 8  # a block, a batch
    assert all(stage["records_per_second"] > 0 and stage["bytes_per_second"] > 0 for stage in stages.values())


def test_rates():
    rates = speed._timed(0.0, lambda: (30, 6_000_000))
    assert rates["records"] == 30 and rates["records_per_second"] == pytest.approx(30 / rates["seconds"])
    cores = rates["cores_busy"] * rates["seconds"]
    assert rates["records_per_second_per_core"] == pytest.approx(30 / cores)
    numbers = dict(zip(rates, (15, 3_000_000, 10, 1.5, 30, 2.0), strict=True))
    assert speed.as_text({"view web": numbers}).splitlines()[1].split() == ["view", "web", "15", "3.0", "10", "1.5"]
