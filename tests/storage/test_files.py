"""Run folders in a bucket: the same files as on a disk, though nothing can be appended to an object."""

import contextlib
import errno
import io
import logging
import os
import pathlib
import sys

import pytest
from etils.epath import backend, gpath

from coca_jax.errors import CocaError
from coca_jax.storage import files, remote
from coca_jax.trainer import writers as metrics
from coca_jax.trainer.writers import MetricsWriter


class Bucket(backend._OsPathBackend):
    """gs://… in a folder, without what objects lack (appending, renaming); what is written appears when it is closed."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.puts = folder, 0

    def _place(self, path) -> pathlib.Path:
        assert os.fspath(path).startswith("gs://"), path
        return self.folder / os.fspath(path).removeprefix("gs://")

    @contextlib.contextmanager
    def open(self, path, mode):
        if "r" in mode:
            with open(self._place(path), mode) as file:
                yield file
            return
        assert "w" in mode, "nothing can be appended to an object"
        text = io.BytesIO() if "b" in mode else io.StringIO()
        yield text
        self.puts += 1
        value = text.getvalue()
        self._place(path).write_bytes(value if "b" in mode else value.encode())

    def pipe_file(self, path, data):  # fsspec's name for writing an object
        self.puts += 1
        self._place(path).write_bytes(data)

    def exists(self, path):
        return self._place(path).exists()

    def makedirs(self, path, *, exist_ok=False, mode=None):
        self._place(path).mkdir(parents=True, exist_ok=exist_ok)

    def rename(self, path, dst):
        raise AssertionError("renaming an object copies it")

    replace = rename


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    fake = Bucket(tmp_path)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", fake)
    monkeypatch.setattr(remote, "system_of", lambda path: (fake, path))
    (tmp_path / "bucket" / "run").mkdir(parents=True)
    return fake


@pytest.fixture(params=["disk", "bucket"])
def folder(request, bucket, tmp_path):
    (tmp_path / "run").mkdir()
    return files.as_path("gs://bucket/run" if request.param == "bucket" else tmp_path / "run")


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert os.fspath(files.as_path("runs/x")) == str(tmp_path / "runs" / "x")
    assert os.fspath(files.as_path("gs://bucket/x") / "y") == "gs://bucket/x/y"
    assert files.is_remote(files.as_path("gs://bucket/x")) and not files.is_remote(tmp_path)


@pytest.mark.parametrize("address", ["gcs://bucket/x", "memory://x", "s3a://bucket/x"])
def test_an_address_of_an_unknown_kind_makes_no_local_folder(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CocaError, match="cannot be written to: give a local path, or an address beginning with gs://"):
        files.as_path(address)
    files.write_atomically("memory://words/x.model", b"vocabulary")
    assert files.read("memory://words/x.model") == b"vocabulary" and not os.listdir(tmp_path)


def test_a_listing_leaves_hidden_names_out(tmp_path):
    for place in (str(tmp_path), f"memory://{tmp_path.name}"):
        for name in ("a.png", "b/c.png", ".d.png", ".ipynb_checkpoints/a.png", "b/.e/f.png"):
            files.write_atomically(f"{place}/{name}", b"x")
        assert [file.name for file in files.list_files(place)] == ["a.png", "b/c.png"]
    assert [file.name for file in files.list_files(f"{tmp_path}/b/.e")] == ["f.png"]  # asked for by name


def test_a_file_removed_during_a_listing_is_left_out(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    scandir = os.scandir

    @contextlib.contextmanager
    def slow(place):
        with scandir(place) as entries:
            found = list(entries)
        (tmp_path / "b.png").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", slow)
    assert [file.name for file in files.list_files(str(tmp_path))] == ["a.png"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "no room")

    files.write_atomically(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no room"):
        files.write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_numbers_survive_a_restart(folder):
    writer = MetricsWriter(folder, start_step=0, steps=9, tensorboard=True)
    for step in range(1, 6):
        writer.write(step, {"loss": 1 / step})
    writer.write_evaluation(5, {"accuracy": 0.5})
    writer.flush()
    assert [row["step"] for row in metrics.read_rows(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    writer.close()
    writer = MetricsWriter(folder, start_step=3, steps=9, tensorboard=True)
    writer.write(4, {"loss": 7.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in metrics.read_history(folder)] == [
        (1, 1),
        (2, 0.5),
        (3, 1 / 3),
        (4, 7),
    ]
    place = pathlib.Path(folder) if not files.is_remote(folder) else folder._backend.folder / "bucket" / "run"
    assert list((place / "tensorboard").glob("events.out.tfevents.*"))


def test_a_bucket_is_written_once_a_minute(bucket, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    folder = files.as_path("gs://bucket/run")
    writer = MetricsWriter(folder, start_step=0, steps=9, tensorboard=False)
    for step in range(1, 11):
        now += 20.0
        writer.write(step, {"loss": 1.0})
    assert 4 <= bucket.puts <= 6  # two files, two or three times
    local = writer._local
    writer.close()
    assert len(metrics.read_rows(folder / "metrics.jsonl")) == 10 and not local.exists()


def test_whole_files(folder):
    files.write_atomically(folder / "evaluation.json", "{}")
    assert (folder / "evaluation.json").read_bytes() == b"{}"


def test_log_lines_do_not_run_into_the_progress_bar(tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.getLogger("coca_jax")
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler()])
    monkeypatch.setattr(log, "propagate", False)
    handlers = log.handlers
    writer = MetricsWriter(files.as_path(tmp_path), start_step=0, steps=9, tensorboard=False)
    writer.progress(3)
    logging.getLogger("coca_jax.x").warning("a sentence")
    writer.close()
    (line,) = [line for line in terminal.getvalue().split("\n") if "a sentence" in line]
    assert line.split("\r")[-1] == "a sentence"
    assert log.handlers == handlers
