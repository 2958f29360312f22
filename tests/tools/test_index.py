"""Indices are made by several processes, once, and damage is told."""

import pytest

from coca_jax.data.records import open as records
from coca_jax.data.records.formats import tfrecord
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.tools import index
from tests.data import builders
from tests.tools.commands import call


@pytest.fixture
def config(tmp_path):
    for number in range(3):
        builders.write_tar(tmp_path / f"t{number}.tar", builders.members(range(10 * number, 10 * number + 10)))
    builders.write_tar(tmp_path / "z.tar", [*builders.members(range(30, 34)), ("alone.png", builders.picture(1))])
    return builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",))


def kept(tmp_path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.index")}


def test_indices_are_made_once_by_processes_and_used(config, tmp_path, monkeypatch, capsys):
    call("index", config, "--workers=2")
    made = kept(tmp_path)
    assert sorted(made) == [f"{name}.tar.index" for name in ("t0", "t1", "t2", "z")]
    said = capsys.readouterr().out.splitlines()
    assert said == ["tars, train: 30 records", "tars, evaluation: 4 records; image without text: 1"]
    monkeypatch.setattr("tarfile.open", None)  # nothing is scanned again
    assert len(records.open_records(config.data.dataset, "train")) == 30
    call("index", config, "--workers=1")
    assert kept(tmp_path) == made


def test_what_is_no_tar_is_named_and_the_others_are_indexed(config, tmp_path, caplog):
    for name in ("bad", "worse"):
        (tmp_path / f"{name}.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(CocaError, match=r"bad\.tar"):
        call("index", config, "--workers=1")
    assert "worse.tar" in caplog.text and len(kept(tmp_path)) == 4
    errors = index.build_indices("tars", config.data.dataset)
    assert sorted(errors) == [str(tmp_path / "bad.tar"), str(tmp_path / "worse.tar")]


def test_what_needs_no_index(tmp_path, capsys):
    call("index", builders.config())
    assert "nothing to do" in capsys.readouterr().out
    builders.write_folder(tmp_path / "photos", range(30))
    call("index", builders.config(format="folder", path=str(tmp_path / "photos"), holdout=0.5))
    assert "evaluation" in capsys.readouterr().out


def test_tfrecords_in_a_bucket_are_indexed_once_for_all_machines(tmp_path, monkeypatch):
    builders.write_tfrecord(tmp_path / "a.tfrecord", builders.examples(range(7)))
    bucket = f"memory://{tmp_path.name}"
    storage.write_atomically(f"{bucket}/a.tfrecord", (tmp_path / "a.tfrecord").read_bytes())
    config = builders.config(format="tfrecords", path=bucket, holdout=0.0)
    call("index", config, "--workers=1")
    assert storage.stat(f"{bucket}/a.tfrecord.index")
    monkeypatch.setenv("COCA_CACHE", str(tmp_path / "another_machine"))
    monkeypatch.setattr(tfrecord, "_scan", None)  # nothing is scanned again
    assert len(records.open_records(config.data.dataset, "train")) == 7


def test_a_cache_folder_in_a_bucket_is_shared_by_all_machines(tmp_path, monkeypatch):
    builders.write_tfrecord(tmp_path / "a.tfrecord", builders.examples(range(7)))
    bucket = f"memory://{tmp_path.name}"
    storage.write_atomically(f"{bucket}/a.tfrecord", (tmp_path / "a.tfrecord").read_bytes())
    monkeypatch.setenv("COCA_CACHE", f"{bucket}-cache")
    config = builders.config(format="tfrecords", path=bucket, holdout=0.0)
    assert len(records.open_records(config.data.dataset, "train")) == 7
    assert len(storage.list_files(f"{bucket}-cache/indices")) == 1
    monkeypatch.setattr(tfrecord, "_scan", None)
    assert len(records.open_records(config.data.dataset, "train")) == 7
