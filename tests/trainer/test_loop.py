"""The loop: its log lines, its transfer guard, and a folder that another run has taken."""

import dataclasses
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from coca_jax.distributed import chips
from coca_jax.errors import CocaError
from coca_jax.trainer import loop, train_step
from coca_jax.trainer.preemption import Preemption


def test_a_log_line_has_the_utilisation_where_the_chips_peak_is_known(monkeypatch):
    known = dataclasses.replace(chips.chip("h100"), flops=1e12, kinds=(jax.devices()[0].device_kind,))
    monkeypatch.setattr(chips, "_CHIPS", (known,))
    config = tiny.config()
    train_step.model_flops(config)  # counted once, and then known
    line = loop.Clock(time.perf_counter() - 2.0, steps=10).line(config)
    # Model FLOPs done in two seconds, over what all chips could have done in them.
    done, possible = 10 * train_step.model_flops(config), 2.0 * 1e12 * jax.device_count()
    assert line["mfu"] == pytest.approx(done / possible, rel=0.01)
    assert line["pairs_per_second"] == pytest.approx(10 * config.train.batch_size / 2, rel=0.01)


def test_where_it_is_not_known_nothing_is_claimed():
    assert "mfu" not in loop.Clock().line(tiny.config())


def _loop(monkeypatch, step, batch):
    """A loop of two steps whose compiled step is `jax.jit(step)`, on this batch; only what the steps need."""
    config = tiny.config(train__steps=2, train__log_every=1)
    monkeypatch.setattr(loop.Loop, "_next", lambda self, *_: batch)
    saved = []
    checkpoints = types.SimpleNamespace(check=lambda: None, save=lambda state, step, record: saved.append(step))
    made = loop.Loop(
        types.SimpleNamespace(
            config=config, compile=lambda: jax.jit(step), objective=types.SimpleNamespace(encodes_first=False)
        ),
        None,
        lambda start: None,
        checkpoints,
        None,
        Preemption(),
        None,
    )
    return made, saved


def _step(state, batch):
    return state + 1, {"loss": jnp.sum(batch["x"]), "gradient_norm": batch["x"][0]}


def test_a_batch_that_is_not_on_the_devices_is_refused(monkeypatch):
    run, saved = _loop(monkeypatch, _step, {"x": jax.device_put(np.ones(3, np.float32))})
    assert run._steps(jnp.zeros(()), 0) == 2 and saved == [2]
    run, saved = _loop(monkeypatch, _step, {"x": np.ones(3, np.float32)})
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run._steps(jnp.zeros(()), 0)
    assert not saved


@pytest.mark.parametrize("broken", ["loss", "gradient_norm"])
def test_a_broken_state_is_not_saved(monkeypatch, broken):
    def step(state, batch):
        return state + 1, {
            "loss": jnp.ones(()),
            "gradient_norm": jnp.ones(()),
            broken: jnp.where(state < 1, 1.0, jnp.nan),
        }

    run, saved = _loop(monkeypatch, step, {"x": jnp.ones(1)})
    with pytest.raises(CocaError, match=f"the {broken} of step 2 is nan: lower"):
        run._steps(jnp.zeros(()), 0)
    assert not saved


def test_a_run_whose_folder_was_taken_stops_before_it_saves(monkeypatch):
    run, saved = _loop(monkeypatch, _step, {"x": jax.device_put(np.ones(3, np.float32))})

    def taken():
        raise CocaError("in use by another training")

    with pytest.raises(CocaError, match="another training"):
        dataclasses.replace(run, check=taken)._steps(jnp.zeros(()), 0)
    assert not saved


@pytest.mark.parametrize(
    "first, every, start, before, evaluated",
    [
        (True, 0, 0, (), [0]),
        (True, 0, 1, (), []),
        (False, 0, 0, (), []),
        (False, 1, 0, (), [1]),
        (False, 1, 1, (), [1]),  # the evaluation that a signal prevented
        (False, 1, 1, (1,), []),
    ],
)
def test_evaluations_within_the_loop(monkeypatch, first, every, start, before, evaluated):
    run, _ = _loop(monkeypatch, _step, {"x": jnp.ones(1)})
    train = dataclasses.replace(run.step.config.train, evaluate_first=first, evaluate_every=every)
    run.evaluated = frozenset(before)
    run.step.config = dataclasses.replace(run.step.config, train=train)
    steps: list[int] = []
    run.evaluate = lambda step, params: steps.append(step)
    monkeypatch.setattr(run, "_save", lambda state, step: None)
    monkeypatch.setattr(loop.Loop, "_evaluate", lambda self, state, step: self.evaluate(step, state))
    run._steps(jnp.zeros(()), start)
    assert steps == evaluated
