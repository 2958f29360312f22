"""launch/*.sh and .ci/run, with a stand-in for Python that writes down how it was called."""

import os
import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*REPOSITORY.glob("launch/*.sh"), REPOSITORY / ".ci/run"])

# Stands in for python3.11 and, copied there by `-m venv`, for .venv/bin/python.
FAKE_PYTHON = """#!/bin/bash
case "$1 $2" in
  "-c "*ensurepip*) exit ${FAKE_ENSUREPIP_STATUS:-0} ;;
  "-c "*) exit 0 ;;
  "-m venv") rm -rf "${!#}"; mkdir -p "${!#}/bin"; cp "$0" "${!#}/bin/python" ;;
esac
echo "$(basename "$0") $*" >> "$FAKE_LOG"
case "$1 $2" in
  "-m pip") exit ${FAKE_PIP_STATUS:-0} ;;
  "-m coca_jax.train" | "-m pytest") echo "JAX_PLATFORMS=${JAX_PLATFORMS:-}"; exit ${FAKE_RUN_STATUS:-0} ;;
esac
"""


class Machine:
    """A copy of the scripts on a machine whose only Python is a stand-in."""

    def __init__(self, folder: pathlib.Path):
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.log = folder / "log"
        shutil.copytree(REPOSITORY / "launch", self.root / "launch")
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, self.root)
        self.bin.mkdir()
        for tool in ("bash", "basename", "cat", "cksum", "cp", "dirname", "getconf", "grep", "mkdir", "rm", "touch"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.add_python("python3.11")

    def add_python(self, name: str) -> None:
        path = self.bin / name
        path.write_text(FAKE_PYTHON)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs a script from another folder; `calls` holds what the stand-ins were asked to do."""
        self.log.write_text("")
        result = subprocess.run(
            [shutil.which("bash"), str(self.root / script), *arguments],
            cwd="/",
            env={"PATH": str(self.bin), "FAKE_LOG": str(self.log), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.calls = self.log.read_text().splitlines()
        return result

    def installs(self) -> list[str]:
        return [call for call in self.calls if " -m pip install " in call or " -m venv " in call]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_bash_accepts_it(script):
    subprocess.run(["bash", "-n", script], check=True, capture_output=True)


@pytest.mark.parametrize("script", ["launch/quickstart.sh", "launch/test.sh", ".ci/run"])
def test_it_is_executable(script):
    assert os.access(REPOSITORY / script, os.X_OK)


@pytest.mark.parametrize(
    "script, names", [("quickstart", ("train", "report.html", "75")), ("test", ("whole suite", "pytest"))]
)
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--config.train.steps=1", "--help"]], ids=" ".join)
def test_help_says_what_it_does_and_does_nothing(machine, script, names, arguments):
    result = machine.run(f"launch/{script}.sh", *arguments)
    assert result.returncode == 0 and not result.stderr
    assert f"launch/{script}.sh" in result.stdout
    assert all(name in result.stdout for name in names)
    assert machine.calls == [] and not (machine.root / ".venv").exists()


def test_quickstart_makes_the_environment_installs_and_trains(machine):
    result = machine.run("launch/quickstart.sh", "--config.train.steps=7", "--config.data.dataset.path=a b")
    assert result.returncode == 0, result.stderr
    venv, install, train = machine.calls
    assert venv == "python3.11 -m venv --clear .venv"
    assert install.startswith("python -m pip install ") and install.endswith(" --editable .")
    assert "--constraint launch/constraints.txt" in install
    assert train == (
        "python -m coca_jax.train --config=configs/quickstart.py --workdir=runs/quickstart"
        " --config.train.steps=7 --config.data.dataset.path=a b"
    )
    assert f"{machine.root}/runs/quickstart/report.html" in result.stdout
    assert "coca_jax.caption --checkpoint=runs/quickstart picture.png" in result.stdout


def test_a_second_call_installs_nothing(machine):
    machine.run("launch/quickstart.sh")
    machine.run("launch/quickstart.sh")
    assert machine.installs() == [] and len(machine.calls) == 1


def test_a_change_of_setup_py_installs_again(machine):
    machine.run("launch/quickstart.sh")
    with (machine.root / "setup.py").open("a") as file:
        file.write("# changed\n")
    machine.run("launch/quickstart.sh")
    (install,) = machine.installs()
    assert install.startswith("python -m pip install")


def test_the_tests_environment_serves_the_quickstart_too(machine):
    machine.run("launch/quickstart.sh")
    machine.run("launch/test.sh")
    (install,) = machine.installs()
    assert install.endswith(" --editable .[test]")
    machine.run("launch/quickstart.sh")
    assert machine.installs() == []
    machine.run("launch/test.sh")
    assert machine.installs() == []


def test_test_sh_runs_pytest_on_the_cpu_with_what_it_is_given(machine):
    result = machine.run("launch/test.sh", "tests/test_house.py", "-k", "a b", FAKE_RUN_STATUS="5")
    assert result.returncode == 5
    assert machine.calls[-1].startswith("python -m pytest -n ")
    assert machine.calls[-1].endswith(
        " --dist loadfile --no-loadscope-reorder --max-worker-restart 0 tests/test_house.py -k a b"
    )
    assert result.stdout.endswith("JAX_PLATFORMS=cpu\n")
    assert machine.run("launch/test.sh", JAX_PLATFORMS="cuda").stdout.endswith("JAX_PLATFORMS=cuda\n")


@pytest.mark.parametrize("status, says", [(75, "run the same command again"), (3, "exit status 3")])
def test_the_exit_status_of_training_passes_through(machine, status, says):
    result = machine.run("launch/quickstart.sh", FAKE_RUN_STATUS=str(status))
    assert result.returncode == status
    assert says in result.stderr and "report.html" not in result.stdout


@pytest.mark.parametrize("flags", [["--workdir=/else/where"], ["--workdir", "/else/where"]], ids=" ".join)
def test_the_report_is_looked_for_where_the_run_is(machine, flags):
    result = machine.run("launch/quickstart.sh", *flags)
    assert "/else/where/report.html" in result.stdout and "runs/quickstart" not in result.stdout


def test_a_broken_venv_is_made_anew(machine):
    (machine.root / ".venv/bin").mkdir(parents=True)
    (machine.root / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    result = machine.run("launch/quickstart.sh")
    assert result.returncode == 0 and "repairing" in result.stdout
    assert [call.split(" --")[0] for call in machine.installs()] == ["python3.11 -m venv", "python -m pip install"]


def test_an_installation_that_failed_starts_over(machine):
    failed = machine.run("launch/quickstart.sh", FAKE_PIP_STATUS="1")
    assert failed.returncode == 1 and len(machine.calls) == 2
    assert failed.stderr.count("\n") == 1 and "pip could not install" in failed.stderr
    assert machine.run("launch/quickstart.sh").returncode == 0
    assert len(machine.installs()) == 2
    machine.run("launch/quickstart.sh")
    assert machine.installs() == []


def test_without_python_one_sentence_says_what_to_do(machine):
    (machine.bin / "python3.11").unlink()
    result = machine.run("launch/quickstart.sh")
    assert result.returncode == 1
    assert result.stderr == (
        "coca_jax: no python3.11 found: install Python 3.11, or name one with PYTHON=/path/to/python3.11.\n"
    )


def test_without_the_venv_module_one_sentence_says_what_to_do(machine):
    result = machine.run("launch/test.sh", FAKE_ENSUREPIP_STATUS="1")
    assert result.returncode == 1 and machine.calls == []
    assert result.stderr.count("\n") == 1 and "apt-get install python3.11-venv" in result.stderr


def test_python_may_be_named(machine):
    machine.add_python("my python")
    machine.run("launch/quickstart.sh", PYTHON=str(machine.bin / "my python"))
    assert machine.calls[0] == "my python -m venv --clear .venv"
    result = machine.run("launch/quickstart.sh", PYTHON="/nowhere/python")
    assert result.returncode == 0  # .venv is there: nothing to look for
    shutil.rmtree(machine.root / ".venv")
    result = machine.run("launch/quickstart.sh", PYTHON="/nowhere/python")
    assert result.returncode == 1 and "PYTHON=/nowhere/python is not" in result.stderr


@pytest.mark.parametrize("apt_status", [0, 1])
def test_ci_goes_on_without_a_browser(machine, apt_status):
    shutil.copytree(REPOSITORY / ".ci", machine.root / ".ci")
    apt = machine.bin / "apt-get"
    apt.write_text(f'#!/bin/bash\necho "apt-get $*" >> "$FAKE_LOG"\nexit {apt_status}\n')
    apt.chmod(0o755)
    result = machine.run(".ci/run", "tests/test_house.py")
    assert result.returncode == 0, result.stderr
    assert machine.calls[0].startswith("apt-get update") and machine.calls[-1].endswith("tests/test_house.py")
    assert ("could not be installed" in result.stderr) == bool(apt_status)
