"""What a log line says of speed."""

import dataclasses
import time

import jax
import pytest
import tiny

from coca_jax.distributed import chips
from coca_jax.trainer import loop, program


def test_a_log_line_has_the_utilisation_where_the_chips_peak_is_known(monkeypatch):
    known = dataclasses.replace(chips.chip("h100"), flops=1e12, kinds=(jax.devices()[0].device_kind,))
    monkeypatch.setattr(chips, "_CHIPS", (known,))
    config = tiny.config()
    clock = loop.Clock(loop._utilisation(config), time.perf_counter() - 2.0)
    clock.steps = 10
    line = clock.line(config.train.batch_size)
    # Model FLOPs done in two seconds, over what all chips could have done in them.
    done, possible = 10 * program.model_flops(config), 2.0 * 1e12 * jax.device_count()
    assert line["mfu"] == pytest.approx(done / possible, rel=0.01)
    assert line["pairs_per_second"] == pytest.approx(10 * config.train.batch_size / 2, rel=0.01)


def test_where_it_is_not_known_nothing_is_claimed():
    assert loop._utilisation(tiny.config()) is None
    assert "mfu" not in loop.Clock(None, time.perf_counter() - 1.0).line(8)
