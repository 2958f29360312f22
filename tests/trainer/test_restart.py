"""Restart is invisible: whatever stops a run, the same command gives the loss curve of one that was never stopped."""

import random
import signal

import pytest
import running

STEPS = 60
FLAGS = (f"--config.train.steps={STEPS}", "--config.train.checkpoint_every=7", "--config.optimizer.ema_decay=0.9")
TIMES = {"pairs_per_second", "pairs_per_second_per_chip", "data_wait"}


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


def test_killed_at_random_moments_gives_the_same_curve_digit_for_digit(undisturbed, tmp_path):
    seed = random.randrange(1000)
    print("seed", seed)  # shown where the test fails
    for step in sorted(random.Random(seed).sample(range(2, STEPS), 3)):
        process = running.start(running.train_command(tmp_path, *FLAGS))
        running.signal_at(process, tmp_path, step, signal.SIGKILL)
        assert running.finish(process)[0] == -signal.SIGKILL
    status, _, err = running.call(running.train_command(tmp_path, *FLAGS))
    assert status == 0, err
    assert curve(tmp_path) == curve(undisturbed)
    assert running.evaluation(tmp_path) == running.evaluation(undisturbed)


def test_sigterm_saves_at_once_and_leaves_with_75(undisturbed, tmp_path):
    process = running.start(running.train_command(tmp_path, *FLAGS))
    running.signal_at(process, tmp_path, 10, signal.SIGTERM)
    status, _, err = running.finish(process)
    assert status == 75, err
    stopped = running.rows(tmp_path)[-1]["step"]
    assert stopped < STEPS
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    status, _, err = running.call(running.train_command(tmp_path, *FLAGS))
    assert status == 0 and f"continuing from the checkpoint at step {stopped}" in err
    assert curve(tmp_path) == curve(undisturbed)


def test_a_finished_run_is_not_trained_again_and_can_be_extended(undisturbed):
    before = curve(undisturbed)
    status, _, err = running.call(running.train_command(undisturbed, *FLAGS))
    assert status == 0, err
    assert curve(undisturbed) == before
    longer = (f"--config.train.steps={STEPS + 2}", *FLAGS[1:])
    status, _, err = running.call(running.train_command(undisturbed, *longer))
    assert status == 0, err
    assert curve(undisturbed)[:STEPS] == before and len(running.rows(undisturbed)) == STEPS + 2
