"""The house stands on its floors: who may import whom, read from the source and tried in fresh processes."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "coca_jax"

# Lowest first. A file imports only from floors below its own; inside a package, siblings import each other.
FLOORS = (
    ("errors", "files", "flops"),
    ("config", "chips", "sets"),
    ("sharding", "hosts", "recipes", "evaluation_recipes"),
    ("losses",),
    ("models",),
    ("generation",),
    ("data",),
    ("trainer", "indexing", "batching", "predictions"),
    ("inference",),
    ("",),  # coca_jax/__init__.py, the public face
    ("evaluation", "planning"),
    ("command_line", "run_setup"),  # what the command lines share
    ("data.tools",),
    ("train", "evaluate", "caption", "search", "plan", "data.__main__"),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

TENSORFLOW = ("tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio")
FENCES = (  # (what, the only package that may import it)
    (("flax.linen",), "models"),
    (TENSORFLOW, "data"),
)
# What a GPU box needs: jax, flax, optax, orbax-checkpoint, ml_collections (and with these absl and numpy).
CORE = (
    "errors",
    "files",
    "flops",
    "config",
    "chips",
    "sets",
    "sharding",
    "recipes",
    "evaluation_recipes",
    "hosts",
    "losses",
    "models",
    "generation",
    "trainer",
    "planning",
)
NOT_IN_CORE = (*TENSORFLOW, "chex", "PIL", "sentencepiece", "sklearn", "tensorboardX", "tqdm")


def module_name(path: pathlib.Path, package: pathlib.Path = PACKAGE) -> str:
    """coca_jax/models/coca.py is "models.coca", coca_jax/models/__init__.py "models", coca_jax/__init__.py ""."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_name(module: str) -> str:
    """The name in FLOORS that a module of coca_jax lives on: its own, or the innermost package's that has one."""
    while "." in module and module not in FLOOR:
        module = module.rpartition(".")[0]
    return module


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, module: str, is_package: bool) -> set[tuple[int, str]]:
    """(line, dotted name) of everything that a source imports, `from a import b` as a.b, at any depth."""
    package = ["coca_jax", *filter(None, module.split("."))]
    package = package if is_package else package[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {(node.lineno, name.name) for name in names}
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                base = ".".join([*base, *([origin] if origin else [])])
                found |= {(node.lineno, f"{base}.{name.name}") for name in names}
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                found.add((node.lineno, name))
            case ast.Attribute(value=ast.Name(id="flax"), attr="linen"):
                found.add((node.lineno, "flax.linen"))
    return found


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def broken_rules(source: str, module: str, is_package: bool, known: set[str]) -> list[str]:
    """A sentence for each import of `source` that the house does not allow; `known`: the modules of coca_jax."""
    own = floor_name(module)
    if own not in FLOOR:
        return [f"coca_jax.{module} stands on no floor: move it, or give it one in FLOORS of tests/test_house.py"]
    broken = []
    for line, name in sorted(imports(source, module, is_package)):
        where = f"coca_jax.{module or '__init__'}, line {line}, imports {name}:"
        for fenced, owner in FENCES:
            if module.split(".")[0] != owner and any(is_within(name, package) for package in fenced):
                broken.append(f"{where} only coca_jax/{owner}/ may")
        if not is_within(name, "coca_jax"):
            continue
        target = name.removeprefix("coca_jax").removeprefix(".")
        while target and target not in known:  # `from coca_jax.config import Config` is about coca_jax.config
            target = target.rpartition(".")[0]
        other = floor_name(target)
        if other not in FLOOR:
            broken.append(f"{where} it stands on no floor of tests/test_house.py")
        elif other != own and FLOOR[other] >= FLOOR[own]:
            broken.append(f"{where} {other or '__init__'} does not stand below {own or '__init__'}")
    return broken


@pytest.mark.parametrize("module", modules(), ids=lambda module: module or "__init__")
def test_a_file_imports_only_from_the_floors_below(module):
    path = modules()[module]
    broken = broken_rules(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", set(modules()))
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


@pytest.mark.parametrize(
    "module, source, rule",
    [
        ("losses", "from coca_jax.models import coca", "models does not stand below losses"),
        ("config", "def f():\n    from coca_jax import sharding", "sharding does not stand below config"),
        ("trainer.loop", "import coca_jax.evaluation.retrieval", "evaluation does not stand below trainer"),
        ("trainer.loop", "from ..evaluation import retrieval", "evaluation does not stand below trainer"),
        ("train", "from coca_jax import evaluate", "evaluate does not stand below train"),
        ("data.tasks", "from coca_jax.tools.__main__ import main", "data.__main__ does not stand below data"),
        ("data.tasks", "from coca_jax.tools import look", "data.tools does not stand below data"),
        ("models.coca", "from coca_jax import load", "__init__ does not stand below models"),
        ("losses", "from flax import linen as nn", "only coca_jax/models/ may"),
        ("losses", "import flax\nx = flax.linen.Dense", "only coca_jax/models/ may"),
        ("trainer.metrics", "import tensorflow.data as d", "only coca_jax/data/ may"),
        ("inference", "import importlib\nimportlib.import_module('seqio')", "only coca_jax/data/ may"),
        ("extras.demo", "import os", "stands on no floor"),
    ],
)
def test_a_broken_rule_is_named(module, source, rule):
    (sentence,) = broken_rules(source, module, False, {*FLOOR, *modules(), "evaluation.retrieval"})
    assert f"coca_jax.{module}" in sentence and rule in sentence


@pytest.mark.parametrize(
    "module, source",
    [
        ("data.tasks", "import seqio\nfrom coca_jax.data import images\nfrom . import vocabulary"),
        ("data.__main__", "import tensorflow\nfrom coca_jax.data.text.vocabulary import train"),
        (
            "data.tools.look",
            "import coca_jax\nfrom coca_jax.evaluation import pictures\nfrom coca_jax.tools import page",
        ),
        ("models.coca", "from flax import linen\nfrom coca_jax.models.layers import Block\nimport flax.struct"),
        ("train", "from coca_jax.evaluation import report\nimport coca_jax"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert broken_rules(source, module, False, {*FLOOR, *modules()}) == []


def run_python(code: str) -> None:
    """Runs code in a fresh process; what it says on its way out is the failure's message."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode:
        pytest.fail(result.stderr[-2000:], pytrace=False)


@pytest.mark.parametrize(
    "module",
    [name for name in ("", "inference", "data.vocabulary") if name in modules()],
    ids=lambda module: module or "__init__",
)
def test_it_imports_neither_tensorflow_nor_seqio(module):
    name = f"coca_jax.{module}".rstrip(".")
    run_python(
        f"import sys, {name}\n"
        f"pulled_in = sorted(set({TENSORFLOW}) & set(sys.modules))\n"
        f"sys.exit(f'import {name} pulls in {{pulled_in}}: only the rest of coca_jax.data may' if pulled_in else 0)"
    )


def test_the_public_face_is_light():
    run_python(
        "import sys, coca_jax\n"
        "pulled_in = sorted({'jax', 'flax', 'optax', 'orbax'} & set(sys.modules))\n"
        "sys.exit(f'import coca_jax pulls in {pulled_in}: these belong in its first use' if pulled_in else 0)"
    )


CORE_ALONE = """
import importlib, sys, traceback
for name in {missing}:
    sys.modules[name] = None  # as if it were not installed
for name in {core}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        at = [frame for frame in traceback.extract_tb(error.__traceback__) if "coca_jax" in frame.filename][-1]
        sys.exit(f"{{at.filename}}, line {{at.lineno}}, imports {{error.name}}: {core_packages} do without it")
"""


def test_the_core_runs_without_the_packages_for_data():
    core = [f"coca_jax.{module}" for module in modules() if module.split(".")[0] in CORE]
    run_python(CORE_ALONE.format(missing=NOT_IN_CORE, core=core, core_packages=", ".join(CORE)))
