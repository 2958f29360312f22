"""What the commands share: home folders, help, and a standard output that nobody reads any more."""

import subprocess
import sys

import pytest
import running

import coca_jax

COMMANDS = ("train", "evaluate", "caption", "search", "plan")


def command(main: str, *arguments: str) -> list[str]:
    """A command whose `main` is this code."""
    return [sys.executable, "-c", f"from coca_jax.cli import app\nimport sys, time\n{main}\napp.run(main)", *arguments]


def ended(main: str, *arguments: str, **variables) -> tuple[int, str, str]:
    """(status, first line, standard error) of a command whose `main` is this code; only its first line is read."""
    with running.start(command(main, *arguments), **variables) as process:
        line = process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    return process.returncode, line, err


@pytest.mark.parametrize(
    "main",
    [
        "def main(_):\n    for i in range(1_000_000): print(i)",  # fails while it prints
        "def main(_):\n    print(0, flush=True)\n    time.sleep(1)\n    print(1)",  # fails at the end, in a buffer
        "def main(_):\n    print(0, flush=True)\n    time.sleep(1)\n    print(1)\n    return 2",
    ],
)
def test_a_reader_that_leaves_early_ends_a_command_quietly(main):
    assert ended(main) == (141, "0\n", "")


def test_another_broken_pipe_is_a_bug_with_its_traceback():
    main = "def main(_):\n    print(0, flush=True)\n    raise BrokenPipeError('of a socket')"
    status, _, err = running.call(command(main))  # standard output stays open to the end
    assert status == 1 and "Traceback" in err and "of a socket" in err


def test_callbacks_of_a_failed_save_are_not_reported_and_other_lost_errors_are():
    main = """
class Lost:
    def __init__(self, message): self.message = message
    def __del__(self): raise RuntimeError(self.message)
def main(_):
    Lost("Event loop is closed"), Lost("something else")
"""
    status, _, err = running.call(command(main))
    assert status == 0 and "something else" in err and "Event loop" not in err, err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_no_failure_and_lists_the_command_s_flags(command):
    status, out, err = running.call(running.command(command, "--help"))
    assert status == 0 and not err, err
    assert ("--config" if command in ("train", "plan") else "--checkpoint") in out
    assert ("--[no]distributed" in out) == (command in ("train", "evaluate"))


def test_a_tilde_in_a_flag_is_the_home_folder_and_none_elsewhere(tmp_path):
    (tmp_path / "own.py").write_text("from coca_jax import config\ndef get_config(): return config.default()\n")
    main = """
config, path = app.define_config("configs"), app.define_path("path", "A path.")
def main(arguments):
    print(app.config(config).data.vocabulary, path.value, *arguments[1:])
"""
    flags = ("--config=~/own.py", "--config.data.vocabulary=~/v.model")
    for given, expected in (("~/x", f"{tmp_path}/x"), ("gs://b/~/x", "gs://b/~/x")):
        status, out, err = ended(main, *flags, f"--path={given}", "a ~ b", HOME=tmp_path)
        assert (status, out) == (0, f"{tmp_path}/v.model {expected} a ~ b\n"), err
    status, _, err = ended(main, "--config=~/none.py", HOME=tmp_path)
    assert status == 2 and f"{tmp_path}/none.py" in err


def test_the_version_has_one_source():
    setup = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=running.REPOSITORY, capture_output=True, text=True, check=True
    )
    assert setup.stdout.split()[-1] == coca_jax.__version__


@pytest.mark.parametrize(
    "line, flag, key",
    [
        ("config.data.mixture = {'a': source(format='tars')}", "--config.seed=1", "format"),  # of source's dataset
        ("pass", "--config.train.zzzqq=1", "zzzqq"),
    ],
)
def test_an_unknown_key_that_resembles_none_is_named_in_one_short_sentence(tmp_path, line, flag, key):
    head = "from coca_jax.config import default, source\ndef get_config():\n    config = default()\n"
    (tmp_path / "own.py").write_text(f"{head}    {line}\n    return config\n")
    main = 'config = app.define_config("configs")\ndef main(_): pass'
    status, _, err = running.call(command(main, f"--config={tmp_path}/own.py", flag))
    assert (status, err) == (2, f"error: the config has no key {key!r}: coca_jax/config/ lists the keys\n")
