"""`python -m coca_jax.plan` as a person types it."""

import importlib.util
import json
import subprocess
import sys

import pytest
import running

LAPTOP = "--config=configs/coca_giant.py:size=laptop"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU's compiler is not installed: pip install '.[plan]'"
)


def plan(*flags, variables=None):
    return running.finish(running.start(running.command("plan", *flags), **(variables or {})))


def sentence(*flags, variables=None) -> str:
    """The one sentence that a failing plan prints."""
    status, _, err = plan(*flags, variables=variables)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and "Traceback" not in err, err
    return errors[0]


@pytest.mark.parametrize(
    "flag, words",
    [("--topology=v9:2x2", ("'v9'", "v5e")), ("--config=configs/no.py", ("--config",)), ("", ("--topology",))],
)
def test_mistakes(flag, words):
    message = sentence(LAPTOP, *filter(None, (flag,)))
    assert all(word in message for word in words), message


def test_without_libtpu(tmp_path):
    (tmp_path / "libtpu.py").write_text("raise ImportError('as if it were not installed')")
    path = f"{tmp_path}:{running.REPOSITORY}"
    assert "'.[plan]'" in sentence(LAPTOP, "--topology=v5e:2x2", variables={"PYTHONPATH": path})


def test_the_full_giant_by_arithmetic():
    """No data, no TPU, no compiler: seconds."""
    status, out, err = plan(
        "--config=configs/coca_giant.py", "--topology=h200:256", "--config.model.remat=none", "--json"
    )
    values = json.loads(out)
    assert values["mesh"] == {"data": 2, "fsdp": 128, "tensor": 1} and values["compile_seconds"] is None
    assert values["flops"]["per_pair"] == pytest.approx(2.189e12, rel=0.01)  # coca_paper.md section 7
    assert not values["fits"] and status == 2 and "--search" in err


def test_a_plan_needs_no_data():
    """Of the mixture here; that no config file needs a path where nothing is read stands in test_config.py."""
    small = ("width=32", "heads=2", "image.mlp=32", "text.mlp=32", "pooler.queries=4")
    flags = (f"--config.model.{change}" for change in small)
    status, out, err = plan(
        "--config=configs/mixture.py", *flags, "--topology=h200:4", "--config.train.batch_size=64", "--json"
    )
    assert status == 0 and json.loads(out)["fits"], err


@needs_libtpu
def test_two_plans_at_once_get_their_machines():
    code = "from coca_jax.planning import topology as t; print(len(t.compile_only_devices(t.parse('v5e:2x2'))), flush=True); input()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["4\n", "4\n"]  # while both are alive
    finally:
        for process in processes:
            process.communicate("\n")


@needs_libtpu
@pytest.mark.slow
def test_a_small_step_compiled_for_a_tpu():
    small = [f"--config.model.{key}=1" for key in ("image.layers", "text.unimodal_layers", "text.multimodal_layers")]
    status, out, err = plan(LAPTOP, *small, "--config.train.mesh.fsdp=2", "--topology=v5e:2x2", "--json")
    assert status == 0, err
    values = json.loads(out)
    memory = values["memory"]
    assert values["fits"] and values["compile_seconds"] > 0
    assert memory["parameters"] + memory["optimizer"] + memory["batch"] < memory["peak"] < memory["available"]
    # What each chip sends is at least its gradients: scattered over fsdp, summed over data.
    assert sum(traffic["bytes"] for traffic in values["traffic"].values()) > 2 * memory["parameters"]
