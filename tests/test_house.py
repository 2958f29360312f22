"""The house: floors, circles, fences and sizes, read from the source, and what may be absent, tried in fresh processes."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "coca_jax"

# `docs/architecture.md` lists the floors of each package, lowest first: a module imports only from floors below its own.
# "__init__" is the package's own file, on the highest floor where it is not listed.
ARCHITECTURE = REPOSITORY / "docs/architecture.md"


def read_floors(page: str) -> dict[str, list[str]]:
    """Lines such as "data.text: vocabulary captions" of the page's block of floors; "coca_jax" is the package itself."""
    (block,) = re.findall(r"```floors\n(.*?)```", page, re.DOTALL)
    rows = (line.partition(":") for line in re.sub(r"\n {2,}", " ", block).splitlines())
    return {"" if package == "coca_jax" else package: entries.split() for package, _, entries in rows}


FLOORS = read_floors(ARCHITECTURE.read_text(encoding="utf-8"))

TENSORFLOW = ("tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio")
FENCES = {  # package that may import it: what no other one may
    "models": ("flax.linen",),
    "data": TENSORFLOW,
    "pages": ("jinja2",),
}
# What runs with only jax, flax, optax, orbax-checkpoint, ml_collections and chex (and with these absl, etils and numpy).
CORE = (
    "errors",
    "config",
    "presets",
    "storage",
    "distributed",
    "models",
    "objectives",
    "generation",
    "trainer",
    "planning",
)
NOT_IN_CORE = (*TENSORFLOW, "PIL", "jinja2", "pyarrow", "sentencepiece", "sklearn", "tensorboardX", "tqdm")
LONGEST_FILE, LONGEST_FUNCTION = 320, 60  # lines


def module_name(path: pathlib.Path) -> str:
    """coca_jax/models/coca.py is "models.coca", coca_jax/models/__init__.py "models", coca_jax/__init__.py ""."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def packages() -> set[str]:
    return {name for name, path in modules().items() if path.name == "__init__.py"}


def imports(source: str, module: str, is_package: bool) -> set[tuple[int, str]]:
    """(line, dotted name) of everything that a source imports at any depth; `from a import b` counts as a.b."""
    package = ["coca_jax", *filter(None, module.split("."))]
    package = package if is_package else package[:-1]
    names_by_line = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                names_by_line |= {(node.lineno, name.name) for name in names}
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = ".".join(
                    [*(package[: len(package) - level + 1] if level else []), *([origin] if origin else [])]
                )
                names_by_line |= {(node.lineno, f"{base}.{name.name}") for name in names}
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                names_by_line.add((node.lineno, name))
            case ast.Attribute(value=ast.Name(id="flax"), attr="linen"):
                names_by_line.add((node.lineno, "flax.linen"))
    return names_by_line


def imported_module(name: str) -> str | None:
    """The module of coca_jax that an imported dotted name belongs to; None for other packages."""
    if not is_within(name, "coca_jax"):
        return None
    target = name.removeprefix("coca_jax").removeprefix(".")
    while target and target not in modules():  # `from coca_jax.config import Config` imports coca_jax.config
        target = target.rpartition(".")[0]
    return target


def is_within(name: str, package: str) -> bool:
    return not package or name == package or name.startswith(package + ".")


def room(module: str, package: str) -> str:
    """The entry of a package's floors that a module below it belongs to."""
    name = module.removeprefix(package).removeprefix(".").partition(".")[0]
    return name or "__init__"


def height(entry: str, package: str) -> int:
    floors = FLOORS[package]
    return floors.index(entry) if entry in floors else len(floors)


def broken_floor(module: str, target: str) -> str | None:
    """Why a module may not import another one; None if it may."""
    package = ""
    while (own := room(module, package)) == (other := room(target, package)):
        package = f"{package}.{own}".removeprefix(".")
        if package not in FLOORS:
            return f"coca_jax.{package} has no floors: list its modules in docs/architecture.md"
    if height(other, package) < height(own, package):
        return None
    return f"{target or '__init__'} does not stand below {module or '__init__'}"


def broken_rules(source: str, module: str, is_package: bool) -> list[str]:
    """A sentence for each import of `source` that the house does not allow."""
    broken = []
    for line, name in sorted(imports(source, module, is_package)):
        where = f"coca_jax.{module or '__init__'}, line {line}, imports {name}:"
        for owner, fenced in FENCES.items():
            if not is_within(module, owner) and any(is_within(name, package) for package in fenced):
                broken.append(f"{where} only coca_jax/{owner}/ may")
        target = imported_module(name)
        if target is not None and target != module and (reason := broken_floor(module, target)):
            broken.append(f"{where} {reason}")
    return broken


def test_the_tables_name_what_exists():
    """A rename must not empty a rule, and a new module must not stand outside all of them."""
    for package in packages():
        below = {name.removeprefix(package).removeprefix(".") for name in modules() if name and name != package}
        children = {name for name in below if "." not in name and f"{package}.{name}".removeprefix(".") in modules()}
        listed = set(FLOORS.get(package, children)) - {"__init__"}
        assert listed == children, f"docs/architecture.md, floors of {package or 'coca_jax'}"
        assert package in FLOORS or len(children) < 2, f"docs/architecture.md lacks the floors of coca_jax.{package}"
    assert set(FLOORS) <= packages()
    assert set(FENCES) | set(CORE) <= set(modules())


def test_the_readme_shows_the_same_floors():
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tree = page.partition("    coca_jax/\n")[2].partition("    configs/")[0]
    names = [name.removesuffix("/").removesuffix(".py") for name in re.findall(r"^      (\S+)", tree, re.MULTILINE)]
    assert names == [name for name in FLOORS[""] if name in names] and set(names) >= {
        name for name in FLOORS[""] if name in packages()
    }


def test_no_imports_form_a_circle():
    """Lazy imports counted; the floors forbid circles, too, and this names the modules of one."""
    graph = {
        module: {
            target
            for _, name in imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            if (target := imported_module(name)) is not None and target != module
        }
        for module, path in modules().items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert len(done) == len(modules())


@pytest.mark.parametrize("module", modules(), ids=lambda module: module or "__init__")
def test_a_module_imports_only_from_the_floors_below(module):
    path = modules()[module]
    broken = broken_rules(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("models.coca", "from coca_jax.objectives import base", "objectives.base does not stand below models.coca"),
        ("models.coca", "from coca_jax import load", "__init__ does not stand below models.coca"),
        (
            "config.data",
            "def f():\n    from coca_jax import distributed",
            "distributed does not stand below config.data",
        ),
        ("trainer.loop", "from ..evaluation import runner", "evaluation.runner does not stand below trainer.loop"),
        ("data.records.record", "from coca_jax.data.records import open", "records.open does not stand below"),
        ("data.records.formats.tar", "import coca_jax.data.pipeline.order", "pipeline.order does not stand below"),
        ("data.text.captions", "from coca_jax.tools import stats", "tools.stats does not stand below"),
        ("train", "from coca_jax import plan", "plan does not stand below train"),
        ("objectives.pretraining", "from flax import linen as nn", "only coca_jax/models/ may"),
        ("trainer.train_step", "import flax\nx = flax.linen.Dense", "only coca_jax/models/ may"),
        ("trainer.writers", "import tensorflow.data as d", "only coca_jax/data/ may"),
        ("inference.model", "import importlib\nimportlib.import_module('seqio')", "only coca_jax/data/ may"),
        ("evaluation.report", "import jinja2", "only coca_jax/pages/ may"),
    ],
)
def test_a_broken_rule_is_named(module, source, rule):
    (sentence,) = broken_rules(source, module, False)
    assert f"coca_jax.{module}" in sentence and rule in sentence


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.seqio_tasks", "import seqio\nfrom coca_jax.data.pipeline import batches\nfrom . import text"),
        ("models.coca", "from flax import linen\nfrom coca_jax.models.layers import Dense\nimport flax.struct"),
        ("evaluation.runner", "import coca_jax\nfrom coca_jax.evaluation import results"),
        (
            "tools.inspect",
            "import coca_jax\nfrom coca_jax.evaluation import predict\nfrom coca_jax.tools import common",
        ),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert broken_rules(source, module, False) == []


@pytest.mark.parametrize("module", modules(), ids=lambda module: module or "__init__")
def test_files_and_functions_stay_short(module):
    source = modules()[module].read_text(encoding="utf-8")
    assert source.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{node.name}, line {node.lineno}"


def run_python(code: str) -> None:
    """Runs code in a fresh process; what it prints on its way out is the failure's message."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False
    )
    if result.returncode:
        pytest.fail(result.stderr[-2000:], pytrace=False)


@pytest.mark.parametrize(
    "module", ["", "inference.loading", "data.text.vocabulary"], ids=lambda module: module or "face"
)
def test_it_imports_neither_tensorflow_nor_seqio(module):
    assert module in modules()
    name = f"coca_jax.{module}".rstrip(".")
    run_python(
        f"import sys, {name}\n"
        f"loaded = sorted(set({TENSORFLOW}) & set(sys.modules))\n"
        f"sys.exit(f'import {name} loads {{loaded}}: only the rest of coca_jax.data may' if loaded else 0)"
    )


def test_the_public_face_is_light():
    run_python(
        "import sys, coca_jax\n"
        "loaded = sorted({'jax', 'flax', 'optax', 'orbax'} & set(sys.modules))\n"
        "sys.exit(f'import coca_jax loads {loaded}: these belong in its first use' if loaded else 0)"
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
    assert len(core) > len(CORE)
    run_python(CORE_ALONE.format(missing=NOT_IN_CORE, core=core, core_packages=", ".join(CORE)))
