"""Runs of the command lines as a user starts them: in processes of their own, on one CPU device, with a tiny model."""

import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

TINY = (
    "--config.model.width=32",
    "--config.model.heads=2",
    "--config.model.image.layers=1",
    "--config.model.image.mlp=32",
    "--config.model.text.unimodal_layers=1",
    "--config.model.text.multimodal_layers=1",
    "--config.model.text.mlp=32",
    "--config.model.pooler.queries=4",
    "--config.train.batch_size=8",
    "--config.train.log_every=1",
    "--config.train.tensorboard=False",
    "--config.evaluation.examples=20",
    "--config.evaluation.batch_size=16",
)


def command(module: str, *flags: object) -> list[str]:
    return [sys.executable, "-m", f"coca_jax.{module}", *map(str, flags)]


def train_command(folder: pathlib.Path, *flags: object, config: str = "configs/quickstart.py") -> list[str]:
    return command("train", f"--config={config}", f"--workdir={folder}", *TINY, *flags)


@functools.cache
def _environment() -> dict[str, str]:
    """Of every run: one CPU device, little time spent on compiling, and none for what an earlier run has compiled."""
    return {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # also where XLA_FLAGS say something else here
        "JAX_COMPILATION_CACHE_DIR": os.environ["COCA_TESTS_COMPILED"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def start(arguments: list[str], **variables: object) -> subprocess.Popen:
    """Starts a command with these environment variables on top of the usual ones."""
    added = {name: str(value) for name, value in variables.items()}
    environment = {**os.environ, **_environment(), **added}
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_several(count: int, arguments: list[str], **variables: object) -> list[subprocess.Popen]:
    """`count` processes that train or evaluate together over the loopback device."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": count}
    return [
        start([*arguments, "--distributed"], **cluster, JAX_PROCESS_ID=index, **variables) for index in range(count)
    ]


def finish(process: subprocess.Popen, timeout: float = 900) -> tuple[int, str, str]:
    """(exit status, standard output, standard error); a process that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def call(arguments: list[str], timeout: float = 900) -> tuple[int, str, str]:
    return finish(start(arguments), timeout)


def rows(folder: pathlib.Path) -> list[dict]:
    """The whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def evaluation(folder: pathlib.Path) -> dict:
    """evaluation.json, without the place of the run."""
    values = json.loads((folder / "evaluation.json").read_text())
    del values["checkpoint"]
    return values


def signal_at(process: subprocess.Popen, folder: pathlib.Path, step: int, number: signal.Signals) -> None:
    """Sends a signal once the run has logged `step`."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        logged = rows(folder)
        if logged and logged[-1]["step"] >= step:
            process.send_signal(number)
            return
        time.sleep(0.005)
    raise AssertionError(f"the run never logged step {step}: {finish(process)}")
