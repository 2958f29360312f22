"""python -m coca_jax.data."""

import pathlib
import subprocess
import sys

from coca_jax.data.vocabulary import Vocabulary

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "coca_jax.data", *map(str, arguments)], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, check=False)


def write_config(path: pathlib.Path) -> pathlib.Path:
    path.write_text("from coca_jax import config\ndef get_config():\n    return config.default()\n")
    return path


def test_a_vocabulary_is_trained_from_a_config(tmp_path):
    result = run("vocabulary", f"--config={write_config(tmp_path / 'c.py')}",
                 f"--output={tmp_path / 'new' / 'v.model'}", "--size=200")
    assert result.returncode == 0, result.stderr
    vocabulary = Vocabulary.from_file(tmp_path / "new" / "v.model")
    assert vocabulary.size == 200 and "200 pieces" in result.stdout


def test_errors_are_one_sentence(tmp_path):
    config = write_config(tmp_path / "c.py")
    for arguments, message in [
        ([], "say what to do"),
        (["bake"], "there is no command 'bake'"),
        (["vocabulary", f"--config={config}", "--config.data.task=folder", f"--config.data.path={tmp_path / 'none'}",
          "--output=v"], "none does not exist"),
    ]:
        result = run(*arguments)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
