"""launch/{tpu,slurm,gke}_run.sh against stand-ins for the clouds' programs, which record how they were called.

The stand-in gcloud keeps TPUs as folders, runs what is sent to a host with bash in that host's folder, and has a Python
there that plays the training: it ends each start with the next status of a list.
"""

import collections
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NASTY = (
    "--config.data.dataset.train_files=('a b',\"it's\")",
    "--config.data.dataset.path=$HOME `id` \\ ; & | * ? ~ # ! %s {x} <y>",
    "--config.note=two\nlines  and two spaces ",
    "--config.empty=",
)
TOOLS = (
    "awk basename bash cat cksum cp date dirname env find flock getconf git grep gzip ls mkdir mv rm sed setsid sh sleep"
    " sort tail tar tee touch wc xargs"
)

# gcloud, sbatch, srun, scontrol and kubectl. CLOUD holds `calls`, the TPUs' states, hosts/NODE-w-N (their homes), …
STAND_IN = """#!PYTHON -SE
import json, os, pathlib, sys

cloud = pathlib.Path(os.environ["CLOUD"])
program, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (cloud / "calls").open("a") as file:
    file.write(json.dumps([program, *arguments]) + "\\n")
flags = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
words = [word for word in arguments if not word.startswith("--")]


def read(name, default=""):
    path = cloud / name
    return path.read_text() if path.exists() else default


def leave(status, message=""):
    print(message, file=sys.stderr)
    sys.exit(status)


def pop(name):  # the file's first line, or none
    first, _, rest = read(name).partition("\\n")
    if first:
        (cloud / name).write_text(rest)
    return first


def describe(name):
    if pop("api_down"):
        leave(1, "ERROR: connection reset")
    if not (cloud / name).exists():
        leave(1, f"ERROR: (gcloud) NOT_FOUND: Resource {name} was not found")
    print(pop(f"{name}.next") or read(name))


def make(node):
    (cloud / "node" / node).write_text("READY")
    for worker in range(int(read("host_count", "1"))):
        (cloud / "hosts" / f"{node}-w-{worker}").mkdir(parents=True)


def homes():
    node = words[-1].rstrip(":")
    if read(f"node/{node}") != "READY":
        leave(1, f"ERROR: {node} is not ready")
    if pop("ssh_down"):
        leave(255, "ssh: connection refused")
    return sorted((cloud / "hosts").glob(f"{node}-w-{flags['worker'].replace('all', '*')}"))


def gcloud():
    if words[:2] == ["storage", "ls"]:
        steps = read("steps").split()
        print(*(f"{words[2]}{step}/" for step in [*steps, "9.orbax-checkpoint-tmp"]), sep="\\n")
        sys.exit(not steps)
    kind, verb, name = words[2:5]
    if verb == "describe":
        describe(f"{'queue' if kind == 'queued-resources' else 'node'}/{name}")
    elif verb == "create":
        (cloud / "queue" / name).write_text("ACTIVE")
        nodes = [f"{flags['node-prefix']}-{n}" for n in range(int(flags["node-count"]))] if "node-count" in flags else []
        for node in nodes or [flags["node-id"]]:
            make(node)
    elif verb == "delete":
        import shutil

        for path in cloud.glob(f"queue/{name}*"), cloud.glob(f"node/{name}*"):
            for file in path:
                file.unlink()
        for home in cloud.glob(f"hosts/{name}*"):
            shutil.rmtree(home, ignore_errors=True)
    elif verb == "scp":
        for home in homes():
            for source in map(pathlib.Path, words[4:-1]):
                (home / source.name).write_bytes(source.read_bytes())
    elif verb == "ssh":
        import subprocess

        for home in homes():
            environment = {**os.environ, "HOME": str(home), "HOSTNAME": home.name}
            command = " ".join(flags["command"].split(" "))  # as gcloud and ssh do
            status = subprocess.run(["bash", "-c", command], cwd=home, env=environment).returncode
            if status:
                leave(status)


def srun():
    import signal, subprocess

    child = subprocess.Popen([word for word in arguments if not word.startswith(("--kill", "--wait"))])
    signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
    sys.exit(child.wait())


if program == "gcloud":
    gcloud()
elif program == "srun":
    srun()
elif program == "sbatch":
    print("4711;cluster")
elif program == "scontrol" and words[0] == "show":
    print(f"   JobState={read('job_state', 'RUNNING')} Reason=None")
"""

# Python on every machine. A status is one of `statuses` (then of `statuses.HOST`): N, N+ (after a checkpoint), preempt,
# wait (for a signal: TERM gives 75).
FAKE_PYTHON = r"""#!/bin/bash
case "$1 $2" in
  "-m venv") rm -rf "${!#}"; mkdir -p "${!#}/bin"; cp "$0" "${!#}/bin/python" ;;
  "-m pip") echo "$HOSTNAME pip ${!#}" >> "$CLOUD/pip"; exit "$(cat "$CLOUD/pip_status" 2>/dev/null || echo 0)" ;;
  "-m coca_jax.train") ;;
  *) exit 0 ;;
esac
[ "$2" = coca_jax.train ] || exit 0
count=$(cat "$CLOUD/starts.$HOSTNAME" 2>/dev/null || echo 0)
echo $((count + 1)) > "$CLOUD/starts.$HOSTNAME"
printf '%s\0' "${@:3}" > "$CLOUD/argv.$HOSTNAME.$count"
echo "${TUNING:-}" > "$CLOUD/environment.$HOSTNAME"
list="$CLOUD/statuses.$HOSTNAME"
[ -e "$list" ] || list="$CLOUD/statuses"
status=$(sed -n "$((count + 1))p" "$list")
echo "start $((count + 1)) on $HOSTNAME ends with $status"
case $status in
  *+) echo "$((count + 1))00" >> "$CLOUD/steps"; exit "${status%+}" ;;
  preempt) echo SUSPENDED > "$CLOUD/queue/giant"; echo -n PREEMPTED > "$CLOUD/node/giant"; exit 143 ;;
  wait)
    trap 'echo TERM >> "$CLOUD/signals"; exit 75' TERM
    touch "$CLOUD/waiting"
    for _ in {1..200}; do sleep 0.05; done ;;
  later*) sleep 0.3; exit "${status#later}" ;;
  *) exit "$status" ;;
esac
"""


class Cloud:
    """A clone of the launchers on a machine with stand-ins, and the clouds behind them."""

    def __init__(self, folder: pathlib.Path):
        self.root = folder / "a clone"
        self.bin = folder / "bin"
        self.state = folder / "cloud"
        shutil.copytree(REPOSITORY / "launch", self.root / "launch")
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, self.root)
        (self.root / ".gitignore").write_text(".venv\nruns/\n")
        subprocess.run(["git", "init", "--quiet", self.root], check=True)
        for name in ("bin", "cloud/queue", "cloud/node", "cloud/hosts"):
            (folder / name).mkdir(parents=True)
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name in ("gcloud", "sbatch", "srun", "scontrol", "kubectl"):
            self._add(name, STAND_IN.replace("PYTHON", sys.executable))
        self._add("python3.11", FAKE_PYTHON)
        self.processes: list[subprocess.Popen] = []
        self.environment = {
            "PATH": str(self.bin),
            "CLOUD": str(self.state),
            "HOME": str(folder),
            "HOSTNAME": "desk",
            "COCA_POLL_SECONDS": "0.02",
            "COCA_STOP_SECONDS": "5",
        }

    def _add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def write(self, name: str, *lines: object) -> None:
        (self.state / name).write_text("".join(f"{line}\n" for line in lines))

    def read(self, name: str) -> str:
        path = self.state / name
        return path.read_text() if path.exists() else ""

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        path = self.root / script if not script.startswith("/") else script
        process = subprocess.Popen(
            [shutil.which("bash"), path, *arguments],
            cwd="/",
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs a script to its end; `calls` is what the stand-ins were asked to do meanwhile."""
        (self.state / "calls").write_text("")
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def tpu(self, *arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        return self.run("launch/tpu_run.sh", *tpu_arguments(*arguments), *flags)

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.state / name).exists():
            assert time.monotonic() < deadline, name
            time.sleep(0.02)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.read("calls").splitlines()]

    def verbs(self) -> list[str]:
        """What gcloud was asked, in short: create, delete, scp, ssh VERB, …"""
        return [verb(call) for call in self.calls]

    def starts(self) -> int:
        return int(self.read("starts.giant-w-0") or 0)

    def argv(self, host: str = "giant-w-0", start: int = 0) -> list[str]:
        return self.read(f"argv.{host}.{start}").split("\0")[:-1]


def tpu_arguments(command: str, *flags: str) -> list[str]:
    where = [command, "--name=giant", "--zone=us-central2-b", *flags]
    if command in ("run", "create"):
        where.append("--accelerator=v4-4096")
    if command == "run":
        where += ["--config=configs/coca_giant.py", "--workdir=gs://bucket/giant"]
    return where


def verb(call: list[str]) -> str:
    if call[1] == "storage":
        return "storage ls"
    if call[4] != "ssh":
        return call[4]
    command = next(word for word in call if word.startswith("--command="))
    return f"ssh {command.split()[2]}"


def printed(text: str) -> list[list[str]]:
    """The commands that a dry run printed."""
    return [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]


def sentence(result: subprocess.CompletedProcess) -> str:
    """The one sentence on standard error of a script that refused."""
    assert result.returncode == 1, result
    assert result.stderr.startswith("coca_jax: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.fixture
def cloud(tmp_path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    yield cloud
    for process in cloud.processes:  # only where a test failed does one still run
        process.kill()
        process.communicate()


@pytest.mark.parametrize("script", ["tpu_run", "slurm_run", "gke_run"])
def test_help_fits_a_screen_and_does_nothing(cloud, script):
    result = cloud.run(f"launch/{script}.sh", "--help")
    assert result.returncode == 0 and not result.stderr and cloud.calls == []
    lines = result.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    assert "--dry-run" in result.stdout and "75" in result.stdout and f"launch/{script}.sh" in result.stdout
    assert os.access(REPOSITORY / "launch" / f"{script}.sh", os.X_OK)


# --- TPU VMs


def test_a_tpu_that_is_not_there_is_made_and_trains_to_the_end(cloud):
    cloud.write("host_count", 2)
    cloud.write("statuses", 0)
    result = cloud.tpu("run", "--reserved", "--env=TUNING=--xla_a=1 --xla_b=(2)", flags=("--", *NASTY))
    assert result.returncode == 0, result.stderr
    (create,) = [call for call in cloud.calls if "create" in call]
    assert create[1:6] == ["compute", "tpus", "queued-resources", "create", "giant"]
    for flag in (
        "--node-id=giant",
        "--accelerator-type=v4-4096",
        "--runtime-version=tpu-ubuntu2204-base",
        "--reserved",
    ):
        assert flag in create
    expected = ["--distributed", "--config=configs/coca_giant.py", "--workdir=gs://bucket/giant", *NASTY]
    assert cloud.argv("giant-w-0") == cloud.argv("giant-w-1") == expected
    assert cloud.read("environment.giant-w-1") == "--xla_a=1 --xla_b=(2)\n"
    assert "start 1 on giant-w-0 ends with 0" in result.stdout and "start 1 on giant-w-1" not in result.stdout
    assert "done: gs://bucket/giant" in result.stdout
    assert cloud.read("pip").split("\n")[:2] == ["giant-w-0 pip .[tpu]", "giant-w-1 pip .[tpu]"]
    assert (cloud.state / "hosts/giant-w-1/coca_jax/source/launch/constraints.txt").exists()

    (cloud.root / "new file.py").write_text("")  # not committed, yet sent
    (cloud.root / "setup.py").touch()
    cloud.write("statuses", 0, 0)
    assert cloud.tpu("run").returncode == 0  # there, and installed
    assert "create" not in cloud.verbs() and cloud.starts() == 2
    assert len(cloud.read("pip").splitlines()) == 2
    assert (cloud.state / "hosts/giant-w-0/coca_jax/source/new file.py").exists()


def test_a_preempted_tpu_is_made_anew_and_the_same_command_continues(cloud):
    cloud.write("statuses", "preempt", 0)
    result = cloud.tpu("run", "--spot", flags=NASTY[:1])
    assert result.returncode == 0, result.stderr
    assert [verb for verb in cloud.verbs() if verb in ("create", "delete", "scp", "ssh install", "ssh start")] == [
        *("create", "scp", "ssh install", "ssh start"),
        *("delete", "create", "scp", "ssh install", "ssh start"),
    ]
    creates = [call for call in cloud.calls if "create" in call]
    assert creates[0] == creates[1] and "--spot" in creates[0]
    assert cloud.argv(start=0) == cloud.argv(start=1) and NASTY[0] in cloud.argv(start=1)
    (delete,) = [call for call in cloud.calls if "delete" in call]
    assert "queued-resources" in delete and "--force" in delete


def test_status_75_starts_again_at_once_on_the_same_tpu(cloud):
    cloud.write("statuses", "75+", "75+", 0)
    result = cloud.tpu("run")
    assert result.returncode == 0, result.stderr
    verbs = collections.Counter(cloud.verbs())
    assert (verbs["create"], verbs["scp"], verbs["ssh quit"], verbs["ssh start"]) == (1, 1, 2, 3)
    assert "start 3 on giant-w-0" in result.stdout


def test_another_status_stops_and_shows_the_log_of_the_host_that_failed_first(cloud):
    cloud.write("host_count", 2)
    cloud.write("statuses", "later134")
    cloud.write("statuses.giant-w-1", 2)
    result = cloud.tpu("run")
    assert result.returncode == 2
    assert "failed on giant-w-1 with exit status 2" in result.stderr
    assert "start 1 on giant-w-1 ends with 2" in result.stderr and "on giant-w-0" not in result.stderr
    assert cloud.verbs().count("ssh start") == 1 and cloud.verbs()[-1] == "ssh quit"


def test_restarts_without_a_new_checkpoint_are_limited(cloud):
    cloud.write("statuses", "75+", 75, "75+", 75, 75, 75, 0)
    result = cloud.tpu("run", "--max-restarts=2")
    assert "no new checkpoint in 2 restarts" in sentence(result)
    assert cloud.starts() == 6  # the checkpoint of the third start allowed more


def test_a_connection_that_fails_is_tried_again(cloud):
    cloud.write("statuses", 0)
    cloud.write("api_down", "once")
    cloud.write("ssh_down", "once", "twice")
    result = cloud.tpu("run")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs().count("scp") == 3 and cloud.starts() == 1


def test_a_cloud_that_does_not_answer_is_not_taken_for_an_absent_tpu(cloud):
    cloud.write("api_down", *range(9))
    result = cloud.tpu("run")
    assert result.returncode == 1 and "gcloud does not say how giant is" in result.stderr
    assert "connection reset" in result.stderr
    assert not {"create", "delete"} & set(cloud.verbs())


def test_it_waits_in_the_queue(cloud):
    cloud.write("statuses", 0)
    (cloud.state / "queue/giant").write_text("ACTIVE")
    cloud.write("queue/giant.next", "WAITING_FOR_RESOURCES", "PROVISIONING")
    cloud.write("host_count", 1)
    (cloud.state / "node/giant").write_text("READY")
    (cloud.state / "hosts/giant-w-0").mkdir()
    result = cloud.tpu("run")
    assert result.returncode == 0 and "is waiting" in result.stdout
    assert "create" not in cloud.verbs() and "delete" not in cloud.verbs()


@pytest.mark.parametrize("state, says", [("FAILED", "says why"), ("ACTIVE", "tpu-vm start giant")])
def test_what_needs_a_person_is_said(cloud, state, says):
    (cloud.state / "queue/giant").write_text(state)
    (cloud.state / "node/giant").write_text("STOPPED")
    assert says in sentence(cloud.tpu("run"))
    assert not {"create", "delete"} & set(cloud.verbs())


def test_an_installation_that_fails_is_said(cloud):
    cloud.write("pip_status", 1)
    result = cloud.tpu("run")
    assert "could not install" in sentence(result)
    assert "pip could not install" in (cloud.root / "runs/tpu/giant/gcloud.log").read_text()


def test_several_slices_are_one_queued_resource_started_together(cloud):
    cloud.write("statuses", 0)
    result = cloud.tpu("run", "--slices=2")
    assert result.returncode == 0, result.stderr
    (create,) = [call for call in cloud.calls if "create" in call]
    assert "--node-count=2" in create and "--node-prefix=giant" in create
    assert cloud.argv("giant-0-w-0") == cloud.argv("giant-1-w-0") != []


def test_a_run_is_taken_up_stopped_and_given_back(cloud):
    cloud.write("statuses", "wait", 0)
    first = cloud.start("launch/tpu_run.sh", *tpu_arguments("run"))
    cloud.wait_for("waiting")
    assert "giant-w-0 running" in cloud.tpu("status").stdout
    assert "another training runs on giant" in sentence(cloud.tpu("run", flags=("--config.train.steps=1",)))
    second = cloud.start("launch/tpu_run.sh", *tpu_arguments("run"))
    deadline = time.monotonic() + 20
    while "ssh follow" not in cloud.verbs()[-3:] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cloud.starts() == 1
    assert cloud.run("launch/tpu_run.sh", *tpu_arguments("stop")).returncode == 0
    for process in first, second:
        out, err = process.communicate(timeout=30)
        assert process.returncode == 75, err
        assert "stopped, with the checkpoint saved" in out
    assert cloud.read("signals") == "TERM\n" and cloud.starts() == 1
    assert "start 1 on giant-w-0" in cloud.tpu("logs", "--worker=0").stdout
    assert cloud.tpu("delete").returncode == 0 and cloud.verbs() == ["describe", "delete"]
    assert "is absent" in cloud.tpu("status").stdout


def test_a_host_that_lost_the_training_is_started_again(cloud):
    cloud.write("statuses", "wait", 0)
    process = cloud.start("launch/tpu_run.sh", *tpu_arguments("run"))
    cloud.wait_for("waiting")
    group = int((cloud.state / "hosts/giant-w-0/coca_jax/pid").read_text())
    os.killpg(group, signal.SIGKILL)  # as a reboot does: no status is left behind
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "a host lost the training" in out and cloud.starts() == 2


def test_a_commit_may_be_named(cloud):
    git = ["git", "-C", cloud.root, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=one"], check=True)
    (cloud.root / "later.py").write_text("")
    cloud.write("statuses", 0)
    assert cloud.tpu("run", "--ref=HEAD").returncode == 0
    source = cloud.state / "hosts/giant-w-0/coca_jax/source"
    assert (source / "setup.py").exists() and not (source / "later.py").exists()


def test_a_dry_run_prints_every_command_that_a_run_makes_and_makes_none(cloud):
    cloud.write("statuses", "preempt", 75, 2)
    flags = ("--slices=1", "--project=my project", "--ssh=--internal-ip", "--create=--network=a b")
    dry = cloud.tpu("run", "--dry-run", *flags, flags=("--", *NASTY[:2]))
    assert dry.returncode == 0 and not dry.stderr and cloud.calls == []
    assert not (cloud.root / "runs").exists()
    assert cloud.tpu("run", *flags, flags=("--", *NASTY[:2])).returncode == 2

    def normal(call: list[str]) -> tuple[str, ...]:
        return tuple(re.sub(r"(tpu_worker.sh follow) .*|(tpu_worker.sh report) .*", r"\1\2 …", word) for word in call)

    asked = {normal(call) for call in printed(dry.stdout) if call[0] == "gcloud"}
    made = {normal(call) for call in cloud.calls}
    only_printed = asked - made
    assert made <= asked
    assert [call[3:5] for call in only_printed] == [("tpu-vm", "delete")]  # of a TPU that was made by hand
    assert any(call[0] == "bash" and "git ls-files" in call[2] for call in printed(dry.stdout))


@pytest.mark.parametrize("command", ["create", "status", "logs", "stop", "delete"])
def test_other_dry_runs_make_no_calls(cloud, command):
    result = cloud.tpu(command, "--dry-run")
    assert result.returncode == 0 and cloud.calls == []
    assert all(call[0] == "gcloud" for call in printed(result.stdout)) and printed(result.stdout)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "say what to do"),
        (["run"], "--name is missing"),
        (["run", "--name=My_run"], "--name=My_run will not do"),
        (["run", "--name=a"], "--zone is missing"),
        (["run", "--name=a", "--zone=z", "--slices=0"], "--slices=0 is no count"),
        (["run", "--name=a", "--zone=z"], "--config is missing"),
        (["run", "--name=a", "--zone=z", "--config=c"], "--workdir is missing"),
        (["run", "--name=a", "--zone=z", "--config=c", "--workdir=runs/a"], "gs://"),
        (["run", "--name=a", "--zone=z", "--config=c", "--workdir=gs://b/a"], "--accelerator is missing"),
        (["create", "--name=a", "--zone=z", "--accelerator=v99-8"], "--runtime=VERSION"),
        (["run", "--name", "a"], "--name is no flag"),
        (["launch"], "'launch'"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_said_in_one_sentence(cloud, arguments, says):
    assert says in sentence(cloud.run("launch/tpu_run.sh", *arguments))
    assert cloud.calls == []


def test_without_gcloud_one_sentence_says_what_to_do(cloud):
    (cloud.bin / "gcloud").unlink()
    assert "install the Google Cloud SDK" in sentence(cloud.tpu("status"))


# --- Slurm

SLURM = ("--name=large", "--nodes=4", "--gpus-per-node=h100:8", "--config=c.py", "--partition=gpu", "--exclusive")


@pytest.fixture
def job(cloud, tmp_path):
    """Submits a job, and gives a function that runs its batch script as Slurm would."""
    result = cloud.run("launch/slurm_run.sh", *SLURM, f"--workdir={tmp_path}/work dir", *NASTY[:1], "--", *NASTY[1:])
    assert result.returncode == 0, result.stderr
    assert "tail -F" in result.stdout and "large-4711.log" in result.stdout
    script = str(cloud.root / "runs/slurm/large.sbatch")
    return lambda: cloud.run(script, SLURM_JOB_ID="4711")


def test_a_job_is_submitted_after_its_installation(cloud, job):
    (call,) = cloud.calls
    assert call[:2] == ["sbatch", "--parsable"] and call[-1] == str(cloud.root / "runs/slurm/large.sbatch")
    assert f"--output={cloud.root}/runs/slurm/large-%j.log" in call
    assert "--partition=gpu" in call and "--exclusive" in call
    assert cloud.read("pip") == "desk pip .[cuda]\n"
    script = pathlib.Path(call[-1]).read_text()
    for line in ("--nodes=4", "--gpus-per-node=h100:8", "--ntasks-per-node=8", "--signal=B:TERM@120", "--requeue"):
        assert f"#SBATCH {line}\n" in script


def test_a_job_trains_with_the_flags_byte_for_byte(cloud, job, tmp_path):
    cloud.write("statuses", 0)
    assert job().returncode == 0
    assert cloud.argv("desk") == ["--distributed", "--config=c.py", f"--workdir={tmp_path}/work dir", *NASTY]
    assert [call[0] for call in cloud.calls] == ["srun"]


@pytest.mark.parametrize("status", [2, 134])
def test_a_job_that_fails_is_not_requeued(cloud, job, status):
    cloud.write("statuses", status)
    assert job().returncode == status
    assert [call[0] for call in cloud.calls] == ["srun"]


def test_a_preempted_job_is_requeued_while_checkpoints_come(cloud, job, tmp_path):
    script = cloud.root / "runs/slurm/large.sbatch"
    script.write_text(script.read_text().replace("-le 10 ]", "-le 1 ]"))
    cloud.write("statuses", *[75] * 9)
    statuses = []
    for step in (None, 100, None, None):
        if step:
            (tmp_path / "work dir/checkpoints" / str(step)).mkdir(parents=True)
        statuses.append(job().returncode)
    assert statuses == [0, 0, 0, 75]  # the last two brought none
    assert [call[:2] for call in cloud.calls] == [["srun", cloud.calls[0][1]], ["scontrol", "show"]]
    (tmp_path / "work dir/checkpoints/200").mkdir()
    assert job().returncode == 0
    assert cloud.calls[-1] == ["scontrol", "requeue", "4711"]


def test_a_cancelled_job_stays_cancelled(cloud, job):
    cloud.write("statuses", 75)
    (cloud.state / "job_state").write_text("CANCELLED")
    assert job().returncode == 75
    assert ["scontrol", "requeue", "4711"] not in cloud.calls


def test_the_warning_before_the_time_limit_reaches_the_tasks_once(cloud, job):
    cloud.write("statuses", "wait")
    (cloud.state / "calls").write_text("")
    process = cloud.start(str(cloud.root / "runs/slurm/large.sbatch"), SLURM_JOB_ID="4711")
    cloud.wait_for("waiting")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert cloud.read("signals") == "TERM\n"
    assert cloud.calls[-1] == ["scontrol", "requeue", "4711"]


def test_a_dry_run_prints_the_batch_script_and_its_submission(cloud, job, tmp_path):
    made = cloud.calls
    flags = [*SLURM, f"--workdir={tmp_path}/work dir", *NASTY[:1], "--", *NASTY[1:]]
    cloud.write("pip")
    result = cloud.run("launch/slurm_run.sh", "--dry-run", *flags)
    assert result.returncode == 0 and cloud.calls == [] and cloud.read("pip") == ""
    script = (cloud.root / "runs/slurm/large.sbatch").read_text()
    assert script in result.stdout
    rest = result.stdout.replace(script, "")
    install, submission = printed(rest)
    assert [submission] == made
    assert "ensure_environment" in install[2] and install[3:] == [f"{cloud.root}/launch/environment.sh", "cuda"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--name=a"], "--nodes is missing"),
        (["--name=a", "--nodes=x"], "--nodes=x is no count"),
        (["--name=a", "--nodes=1", "--gpus-per-node=h100:"], "--gpus-per-node"),
        (["--name=a", "--nodes=1", "--cuda=rocm"], "--cuda=rocm"),
        (["--name=a", "--nodes=1", "--config=c"], "--workdir is missing"),
        (["--name=a", "--nodes=1", "--dry-rum"], "--dry-rum is no flag"),
    ],
    ids=" ".join,
)
def test_slurm_says_what_is_wrong(cloud, arguments, says):
    assert says in sentence(cloud.run("launch/slurm_run.sh", *arguments))


# --- GKE

GKE = ("run", "--name=giant", "--image=registry/coca:1", "--config=c.py", "--workdir=gs://b/giant")


def pod_template(job: dict) -> dict:
    return job["spec"]["replicatedJobs"][0]["template"]["spec"]


@pytest.mark.parametrize(
    "flags, slices, hosts, chips, topology",
    [
        (["--accelerator=tpu-v4-podslice", "--topology=8x16x16"], 1, 512, 4, "cloud.google.com/gke-nodepool"),
        (["--accelerator=tpu-v6e-slice", "--topology=16x16", "--slices=2"], 2, 64, 4, "cloud.google.com/gke-nodepool"),
        (["--accelerator=tpu-v6e-slice", "--topology=2x4", "--chips-per-host=8"], 1, 1, 8, "kubernetes.io/hostname"),
        (["--accelerator=tpu-v5-lite-podslice", "--topology=1x1"], 1, 1, 1, "kubernetes.io/hostname"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_the_manifest_counts_slices_hosts_and_chips(cloud, flags, slices, hosts, chips, topology):
    result = cloud.run("launch/gke_run.sh", *GKE, *flags)
    assert result.returncode == 0, result.stderr
    path = cloud.root / "runs/gke/giant.yaml"
    assert cloud.calls == [["kubectl", "apply", f"--filename={path}"]]
    jobset = yaml.safe_load(path.read_text())
    job = pod_template(jobset)
    container = job["template"]["spec"]["containers"][0]
    assert jobset["spec"]["replicatedJobs"][0]["replicas"] == slices
    assert job["parallelism"] == job["completions"] == hosts
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": chips}
    assert list(jobset["metadata"]["annotations"].values()) == [topology]
    assert "${" not in path.read_text()


def test_the_manifest_restarts_on_preemption_and_hands_over_the_flags(cloud):
    flags = [
        "--accelerator=tpu-v5p-slice",
        "--topology=8x8x8",
        "--spot",
        "--node-selector=team=a&b",
        "--env=TUNING=a $(b)",
    ]
    nasty = [*NASTY, "--config.x=$(HOSTS) ${HOSTS} $$ & \\1"]
    cloud.run("launch/gke_run.sh", *GKE, *flags, "--max-restarts=7", "--", *nasty)
    jobset = yaml.safe_load((cloud.root / "runs/gke/giant.yaml").read_text())
    job = pod_template(jobset)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "coca_jax.train", "--distributed"]
    assert [word.replace("$$", "$") for word in container["args"]] == [*GKE[3:], *nasty]
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", "".join(container["args"])), "Kubernetes would expand it"
    assert container["env"] == [{"name": "TUNING", "value": "a $$(b)"}]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "8x8x8",
        "cloud.google.com/gke-spot": "true",
        "team": "a&b",
    }
    assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0  # as podFailurePolicy requires
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    exit_code = job["podFailurePolicy"]["rules"][0]
    assert exit_code["action"] == "FailJob" and exit_code["onExitCodes"]["values"] == [75]
    assert exit_code["onExitCodes"]["containerName"] == container["name"]


def test_a_dry_run_prints_the_manifest_and_the_commands(cloud):
    flags = [*GKE, "--accelerator=tpu-v4-podslice", "--topology=2x2x4", "--context=a b"]
    cloud.run("launch/gke_run.sh", *flags)
    made, manifest = cloud.calls, (cloud.root / "runs/gke/giant.yaml").read_text()
    shutil.rmtree(cloud.root / "runs")
    result = cloud.run("launch/gke_run.sh", "--dry-run", *flags)
    assert result.returncode == 0 and cloud.calls == [] and not (cloud.root / "runs").exists()
    assert manifest in result.stdout
    assert printed(result.stdout.replace(manifest, "")) == made


@pytest.mark.parametrize("command, count", [("status", 2), ("logs", 1), ("delete", 1)])
def test_gke_commands(cloud, command, count):
    dry = cloud.run("launch/gke_run.sh", command, "--name=giant", "--namespace=ml", "--dry-run")
    assert cloud.calls == []
    assert cloud.run("launch/gke_run.sh", command, "--name=giant", "--namespace=ml").returncode == 0
    assert printed(dry.stdout) == cloud.calls and len(cloud.calls) == count
    assert all("--namespace=ml" in call for call in cloud.calls)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["run", "--name=a"], "--config is missing"),
        ([*GKE], "is no TPU of GKE"),
        ([*GKE, "--accelerator=tpu-v6e-slice"], "--topology= is none"),
        ([*GKE, "--accelerator=tpu-v6e-slice", "--topology=4;4"], "--topology=4;4 is none"),
        ([*GKE, "--accelerator=tpu-v6e-slice", "--topology=2x3", "--chips-per-host=4"], "do not divide"),
        ([*GKE, "--accelerator=tpu-v6e-slice", "--topology=4x4", "--image="], "--image is missing"),
        ([*GKE, "--workdir=/tmp/a"], "would be lost"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_gke_says_what_is_wrong(cloud, arguments, says):
    assert says in sentence(cloud.run("launch/gke_run.sh", *arguments))
    assert cloud.calls == []
