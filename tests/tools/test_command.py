"""python -m coca_jax.tools."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from coca_jax.config import SourceConfig
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.errors import CocaError
from coca_jax.storage.files import read
from coca_jax.tools.__main__ import COMMANDS
from tests.data import builders
from tests.tools.commands import call

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "coca_jax.tools", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_config(path: pathlib.Path) -> pathlib.Path:
    path.write_text("from coca_jax import config\ndef get_config():\n    return config.default()\n")
    return path


def test_a_vocabulary_is_trained_from_a_config(tmp_path):
    result = run(
        "vocabulary",
        f"--config={write_config(tmp_path / 'c.py')}",
        f"--output={tmp_path / 'new' / 'v.model'}",
        "--size=200",
    )
    assert result.returncode == 0, result.stderr
    vocabulary = Vocabulary.from_file(tmp_path / "new" / "v.model")
    assert vocabulary.size == 200 and "200 pieces" in result.stdout


def test_a_vocabulary_of_a_mixture_knows_the_words_of_every_set(tmp_path):
    builders.write_folder(tmp_path / "photos", range(40))
    mixture = {"own": builders.source(format="folder", path=str(tmp_path / "photos")), "scenes": SourceConfig()}
    call("vocabulary", builders.config(mixture=mixture), f"--output={tmp_path / 'v.model'}", "--size=300")
    vocabulary = Vocabulary.from_file(tmp_path / "v.model")
    texts = ["shade 17", "a small red three above a large blue seven"]
    assert vocabulary.decode(vocabulary.encode(texts, 32)) == texts
    with pytest.raises(CocaError, match="--output is missing"):
        call("vocabulary", builders.config())


def test_errors_are_one_sentence(tmp_path):
    config = write_config(tmp_path / "c.py")
    for arguments, message in [
        (["bake", "--temperature=200"], "there is no command 'bake'"),
        (["stats"], "--config is missing"),
        (["stats", f"--config={config}", "--smaple=3"], "smaple"),
        (
            [
                "vocabulary",
                f"--config={config}",
                "--config.data.dataset.format=folder",
                f"--config.data.dataset.path={tmp_path / 'none'}",
                "--output=v",
            ],
            "none does not exist",
        ),
    ]:
        result = run(*arguments)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr


def test_help_lists_the_commands():
    for arguments in ([], ["--help"]):
        overview = run(*arguments)
        assert overview.returncode == 0 and all(f"\n    {name} " in overview.stdout for name in COMMANDS)


def test_help_into_a_pipe_that_closes_is_quiet():
    command = f"{sys.executable} -m coca_jax.tools dedup --help | true"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout == result.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = run(name, "--help")
    assert result.returncode == 0 and f"python -m coca_jax.tools {name} --config=" in result.stdout
    assert ("--split: <train|evaluation>" in result.stdout) == (name in ("stats", "inspect"))
    assert ("--distance" in result.stdout) == (name == "dedup") and "--config.key=value" in result.stdout


def test_a_vocabulary_is_written_into_a_bucket_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("vocabulary", builders.config(), "--output=memory://bucket/new/v.model", "--size=200")
    assert not list(tmp_path.iterdir())  # no folder named "memory:"
    assert Vocabulary(read("memory://bucket/new/v.model")).size == 200
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    call("vocabulary", builders.config(), "--output=~/v.model", "--size=200")
    assert (tmp_path / "home" / "v.model").exists() and not (tmp_path / "~").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(CocaError, match=r"cannot be written to .*file/v.model .*: choose another path"):
        call("vocabulary", builders.config(), f"--output={tmp_path / 'file' / 'v.model'}", "--size=200")


def test_tools_work_on_stored_tokens(tmp_path, capsys):
    rng = np.random.default_rng(0)
    members = []
    for i in range(12):
        tokens = rng.normal(size=(5, 32 if i else 3)).astype(np.float16)  # the first one has another width
        members += [(f"{i:03}.npy", builders.npy(tokens)), (f"{i:03}.txt", f"shade {i}".encode())]
    builders.write_tar(tmp_path / "a.tar", members)
    config = builders.config(format="tars", path=str(tmp_path), holdout=1e-9, max_bad_ratio=0.5)
    image = dataclasses.replace(config.model.image, kind="precomputed", tokens=5)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, image=image, width=32))
    call("stats", config, "--json")
    stats = json.loads(capsys.readouterr().out)["tars"]
    assert stats["formats"] == {"stored tokens": 11} and list(stats["corrupt"].values()) == [1]
    call("speed", config, "--seconds=0", "--json")
    assert json.loads(capsys.readouterr().out)["pipeline"]["records"] == 8
    call("inspect", config, f"--output={tmp_path / 'x.html'}", "--count=3")
    assert "images of 5 x 32" in capsys.readouterr().out
    assert (tmp_path / "x.html").read_text().count("5 stored tokens, values from -") == 3
