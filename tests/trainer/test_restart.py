"""Restart is invisible: whatever stops a run, the same command gives the loss curve of one that was never stopped."""

import random
import signal
import time

import pytest
import running

STEPS = 36
FLAGS = (f"--config.train.steps={STEPS}", "--config.train.checkpoint_every=5", "--config.optimizer.ema_decay=0.9")
TIMES = {"pairs_per_second", "pairs_per_second_per_chip", "data_wait"}
TRAINED = "compiled the train step"  # in the log of every process that takes a step


def curve(folder) -> list[dict]:
    """Every number of metrics.jsonl that does not measure time."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in running.rows(folder)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    status, _, err = running.call(running.train_command(folder, *FLAGS))
    assert status == 0, err
    assert [row["step"] for row in running.rows(folder)] == list(range(1, STEPS + 1))
    return folder


def test_told_to_stop_and_killed_at_random_moments_gives_the_same_curve_digit_for_digit(undisturbed, tmp_path):
    seed = random.randrange(1000)
    print("seed", seed)  # shown where the test fails
    draw = random.Random(seed)

    # Told to stop: it saves at once, and leaves with 75.
    process = running.start(running.train_command(tmp_path, *FLAGS))
    running.signal_at(process, tmp_path, draw.randrange(2, 10), signal.SIGTERM)
    status, _, err = running.finish(process)
    assert status == 75, err
    stopped = running.rows(tmp_path)[-1]["step"]
    assert stopped < STEPS
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()

    # Killed between two steps.
    process = running.start(running.train_command(tmp_path, *FLAGS))
    running.signal_at(process, tmp_path, stopped + draw.randrange(1, 9), signal.SIGKILL)
    status, _, err = running.finish(process)
    assert status == -signal.SIGKILL and f"continuing from the checkpoint at step {stopped}" in err
    assert stopped < running.rows(tmp_path)[-1]["step"]

    # Killed again, in the evaluation after the last step.
    process = running.start(running.train_command(tmp_path, *FLAGS))
    while process.poll() is None and not (tmp_path / "checkpoints" / str(STEPS)).is_dir():
        time.sleep(0.005)
    process.kill()
    status, _, err = running.finish(process)
    assert status == -signal.SIGKILL and TRAINED in err, err
    assert curve(tmp_path) == curve(undisturbed)
    assert not (tmp_path / "evaluation.json").exists()

    # All steps are taken: only the evaluation is left to do.
    status, _, err = running.call(running.train_command(tmp_path, *FLAGS))
    assert status == 0 and f"continuing from the checkpoint at step {STEPS}" in err and TRAINED not in err, err
    assert curve(tmp_path) == curve(undisturbed)
    assert running.evaluation(tmp_path) == running.evaluation(undisturbed)


def test_a_finished_run_can_be_extended(undisturbed):
    before = curve(undisturbed)
    longer = (f"--config.train.steps={STEPS + 2}", *FLAGS[1:], "--config.evaluation.examples=2")
    status, _, err = running.call(running.train_command(undisturbed, *longer))
    assert status == 0, err
    assert curve(undisturbed)[:STEPS] == before and len(running.rows(undisturbed)) == STEPS + 2
