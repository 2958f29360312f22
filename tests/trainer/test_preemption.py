"""Being told to stop: once is enough, and only a person at the keyboard can insist."""

import signal
import subprocess
import sys

import pytest

from coca_jax.trainer.preemption import Preempted, Preemption


def test_a_request_is_noticed_and_repeating_it_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as stop:
        assert not stop.poll()
        stop.check()
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.poll()
        with pytest.raises(Preempted):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_wait_ends_at_once():
    with Preemption() as stop:
        with pytest.raises(Preempted), stop.immediate():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted), stop.immediate():
            raise AssertionError("not reached: the request stands")


SAVING = """
import sys, time
from coca_jax.trainer.preemption import Preemption
with Preemption() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(1)
    print("saved", flush=True)
"""


@pytest.mark.parametrize(
    "first, second, status",
    [
        (signal.SIGTERM, signal.SIGTERM, 0),
        (signal.SIGINT, signal.SIGINT, -signal.SIGINT),
    ],
)
def test_a_second_signal_during_the_save(first, second, status):
    with subprocess.Popen([sys.executable, "-c", SAVING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == "saving\n"
        process.send_signal(second)
        assert process.wait(30) == status
        assert ("saved" in process.stdout.read()) == (status == 0)
