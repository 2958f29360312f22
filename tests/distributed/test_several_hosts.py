"""One run in several processes over the loopback device: the same numbers, one folder, and one end for all."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import running

from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.trainer import preemption

WORKER = pathlib.Path(__file__).parents[1] / "trainer" / "host_worker.py"
STEPS = 16
LOSSES = ("loss", "contrastive_loss", "captioning_loss", "gradient_norm")
TIMES = {"pairs_per_second", "pairs_per_second_per_chip", "data_wait"}


def worker(folder: pathlib.Path, fsdp: int, tensor: int, *options: str, steps: int = STEPS) -> list[str]:
    return [sys.executable, *map(str, (WORKER, folder, steps, fsdp, tensor)), *options]


def numbers(folder: pathlib.Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in running.rows(folder)]


def assert_begins(rows: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    for row, other in zip(rows, expected[: len(rows)], strict=True):
        for key in LOSSES:
            np.testing.assert_allclose(row[key], other[key], rtol=1e-5, err_msg=f"{key} of step {row['step']}")


def test_four_then_two_processes_stopped_and_killed_train_as_one(tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "several"
    status, _, err = running.finish(running.start(worker(alone, 1, 1)))
    assert status == 0, err
    expected = numbers(alone)
    assert len(expected) == STEPS

    # Four, with parameters and rows of the batch over several processes; one of them is told to stop, twice.
    processes = running.start_several(4, worker(folder, 2, 2))
    running.signal_at(processes[2], folder, 2, signal.SIGTERM)
    processes[2].send_signal(signal.SIGTERM)
    ends = [running.finish(process) for process in processes]
    assert [status for status, _, _ in ends] == [preemption.EXIT_STATUS] * 4, ends
    assert not any(err for _, _, err in ends[1:]), ends
    stopped = numbers(folder)
    assert_begins(stopped, expected)
    assert 2 <= len(stopped) < STEPS and (folder / "checkpoints" / str(len(stopped))).is_dir()

    # Two go on from their checkpoint; one is killed: the other ends too.
    processes = running.start_several(2, worker(folder, 2, 1))
    running.signal_at(processes[1], folder, len(stopped) + 4, signal.SIGKILL)
    assert running.finish(processes[1])[0] == -signal.SIGKILL
    assert running.finish(processes[0], timeout=300)[0] not in (0, 2, preemption.EXIT_STATUS)
    killed = numbers(folder)
    assert len(stopped) + 4 <= len(killed) < STEPS

    # Both start again, and the curve is the same digit for digit.
    ends = [running.finish(process) for process in running.start_several(2, worker(folder, 2, 1))]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert_begins(numbers(folder), expected)
    assert len(numbers(folder)) == STEPS and numbers(folder)[: len(killed)] == killed


def test_two_processes_keep_features_as_one_does(tmp_path):
    """Each has other rows in each epoch, and needs the features of records that the other one has read."""
    alone, folder = tmp_path / "alone", tmp_path / "several"
    status, _, err = running.finish(running.start(worker(alone, 1, 1, "cached", steps=5)))
    assert status == 0, err
    ends = [running.finish(one) for one in running.start_several(2, worker(folder, 2, 1, "cached", steps=5))]
    assert [status for status, _, _ in ends] == [0, 0], ends
    found, expected = numbers(folder), numbers(alone)
    assert len(found) == len(expected) == 5 and expected[-1]["loss"] < expected[0]["loss"]
    for row, other in zip(found, expected, strict=True):
        for key in ("loss", "classification_loss", "gradient_norm"):
            np.testing.assert_allclose(row[key], other[key], rtol=1e-5, err_msg=f"{key} of step {row['step']}")


def test_no_process_waits_long_in_one_collective_for_what_the_first_makes(monkeypatch):
    sent, asked = [], threading.Event()

    def broadcast(value):
        sent.append(value)
        if len(sent) == 3:
            asked.set()
        return value

    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.multihost_utils, "broadcast_one_to_all", broadcast)
    monkeypatch.setattr(hosts, "_WORKING_SECONDS", 0.01)
    assert hosts.from_first(lambda: b"made" if asked.wait(10) else b"waited in vain") == b"made"

    def fail():
        raise CocaError("no disk")

    with pytest.raises(CocaError, match="no disk"):
        hosts.from_first(fail)


@pytest.mark.parametrize(
    "variables, words",
    [
        (
            {"JAX_NUM_PROCESSES": 2, "JAX_PROCESS_ID": 1},
            ("JAX_COORDINATOR_ADDRESS is not set, unlike JAX_NUM_PROCESSES and JAX_PROCESS_ID",),
        ),
        ({"JAX_PROCESS_ID": 1}, ("JAX_COORDINATOR_ADDRESS is not set, unlike JAX_PROCESS_ID",)),
        ({"JAX_COORDINATOR_ADDRESS": "here", "JAX_NUM_PROCESSES": 2, "JAX_PROCESS_ID": 1}, ("here", "host:port")),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": 2, "JAX_PROCESS_ID": 2}, ("count from 0",)),
    ],
)
def test_a_cluster_that_cannot_be(variables, words, monkeypatch):
    for name in hosts.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(CocaError) as caught:
        hosts.join()
    assert all(word in str(caught.value) for word in words), caught.value


def test_no_cluster_at_all():
    # In a process of its own: this one's jax has been used, and can no longer join others.
    environment = {name: value for name, value in os.environ.items() if name not in hosts.VARIABLES}
    code = "from coca_jax.distributed import processes; processes.join()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=400)
    assert "CocaError: --distributed found no cluster" in done.stderr
    assert "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID" in done.stderr
