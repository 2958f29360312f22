"""A folder belongs to one training at a time; one that cannot be written is refused in a sentence."""

import errno
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from coca_jax.errors import CocaError
from coca_jax.storage.files import as_path, write_atomically
from coca_jax.trainer import workdir
from coca_jax.trainer.workdir import Claim, writing


@pytest.fixture
def folder(tmp_path):
    return as_path(tmp_path)


@pytest.fixture
def brisk(monkeypatch):
    monkeypatch.setattr(workdir, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(workdir, "_LEASE_SECONDS", 0.7)


def _owner(**changes) -> dict:
    """The sign of life of a training on another machine."""
    return {"host": "far", "machine": "another", "pid": 7, "since": "yesterday", "run": "theirs", "beats": 1} | changes


def test_a_second_training_is_refused_and_the_next_one_is_not(folder):
    with Claim(folder) as claim:
        claim.check()
        with pytest.raises(
            CocaError, match=r"is in use by another training \(process \d+ on .*choose another --workdir"
        ):
            Claim(folder).__enter__()
        claim.check()
    with Claim(folder):
        pass
    assert not (folder / ".owner.json").exists()


def test_a_killed_training_does_not_hold_its_folder(folder):
    code = """
import sys, time
from coca_jax.storage.files import as_path
from coca_jax.trainer.workdir import Claim
with Claim(as_path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    with pytest.raises(CocaError, match=f"process {process.pid} on "):
        Claim(folder).__enter__()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / ".owner.json").exists()
    started = time.monotonic()
    with Claim(folder):
        assert time.monotonic() - started < 5  # the lock has shown its death: no lease needs to run out


def test_of_two_that_begin_together_one_is_refused(folder):
    outcomes, begin, end = [], threading.Barrier(2), threading.Barrier(2)

    def train():
        begin.wait()
        try:
            with Claim(folder):
                outcomes.append("trains")
                end.wait()
        except CocaError:
            outcomes.append("refused")
            end.wait()

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "trains"]


@pytest.mark.parametrize("locks", [True, False], ids=["disk", "bucket"])
def test_the_owner_on_another_machine_is_believed_while_it_gives_signs_of_life(folder, brisk, monkeypatch, locks):
    monkeypatch.setattr(workdir, "is_remote", lambda path: not locks)
    path, stop = folder / ".owner.json", threading.Event()

    def live():
        beats = 0
        while not stop.wait(0.02):
            beats += 1
            write_atomically(path, json.dumps(_owner(beats=beats)))  # as the owner does: never read in part

    thread = threading.Thread(target=live)
    thread.start()
    while not path.exists():
        time.sleep(0.01)
    try:
        with pytest.raises(CocaError, match=r"\(process 7 on far, since yesterday\)"):
            Claim(folder).__enter__()
    finally:
        stop.set()
        thread.join()
    with Claim(folder):  # once it is silent for the length of a lease
        assert json.loads(path.read_text())["run"] != "theirs"


def test_a_training_that_lost_its_folder_stops_and_leaves_it_alone(folder, brisk):
    path = folder / ".owner.json"
    with Claim(folder) as claim:
        path.write_text(json.dumps(_owner()))
        deadline = time.monotonic() + 20
        with pytest.raises(CocaError, match="process 7 on far"):
            while time.monotonic() < deadline:
                claim.check()
                time.sleep(0.02)
    assert json.loads(path.read_text())["run"] == "theirs"


def test_an_owner_gives_signs_of_life(folder, brisk):
    with Claim(folder):
        first = json.loads((folder / ".owner.json").read_text())
        deadline = time.monotonic() + 20
        while json.loads((folder / ".owner.json").read_text()) == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


# Folders that cannot be written


def _file(tmp_path):
    (tmp_path / "run").write_text("a file")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "place", [_file, lambda tmp_path: _file(tmp_path) / "below", lambda tmp_path: "/proc/no/such"], ids=[*"abc"]
)
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, place):
    folder = as_path(place(tmp_path))
    with pytest.raises(CocaError, match=r"cannot be written .*give --workdir a folder") as caught, writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    assert "\n" not in str(caught.value)


# As tensorstore reports it, from a disk of one MiB.
FULL = (
    'RESOURCE_EXHAUSTED: Error writing "a/0" in OCDBT database at local file "/tmp/run/3.orbax-checkpoint-tmp/": '
    "Failed to write 6488064 bytes to file 11: No space left on device [os_error_code='28'] [source locations=x]"
)


def test_a_full_disk_is_one_sentence_for_a_checkpoint_too(folder):
    with pytest.raises(CocaError, match=f"{folder} cannot be written .No space left on device.: make"), writing(folder):
        raise ValueError(FULL)
    with pytest.raises(ValueError, match="a bug"), writing(folder):
        raise ValueError("a bug")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG])
def test_a_full_disk_is_one_sentence_even_without_the_name_of_a_file(folder, number):
    with pytest.raises(CocaError, match=f"{folder} cannot be written"), writing(folder):
        raise OSError(number, "no room")


def test_a_missing_file_elsewhere_stays_what_it_is(folder):
    with pytest.raises(FileNotFoundError), writing(folder):
        pathlib.Path("/nowhere/else").read_text()
