"""python -m coca_jax.tools."""

import pathlib
import subprocess
import sys

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
        timeout=60,
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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = run(name, "--help")
    assert result.returncode == 0 and f"python -m coca_jax.tools {name} --config=" in result.stdout
    assert ("--split: <train|evaluation>" in result.stdout) == (name in ("stats", "inspect"))
    assert ("--distance" in result.stdout) == (name == "dedup") and "--config.key=value" in result.stdout


def test_a_vocabulary_is_written_into_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("vocabulary", builders.config(), "--output=memory://bucket/new/v.model", "--size=200")
    assert not list(tmp_path.iterdir())  # no folder named "memory:"
    assert Vocabulary.from_bytes(read("memory://bucket/new/v.model")).size == 200
    (tmp_path / "file").write_text("")
    with pytest.raises(CocaError, match=r"cannot be written to .*file/v.model .*: choose another path"):
        call("vocabulary", builders.config(), f"--output={tmp_path / 'file' / 'v.model'}", "--size=200")
