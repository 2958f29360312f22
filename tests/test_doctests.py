"""The examples in docstrings are true."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path for path in (ROOT / "coca_jax").rglob("*.py") if ">>> " in path.read_text())


def test_losses_and_metrics_have_examples():
    rooms = {path.parent.relative_to(ROOT / "coca_jax").as_posix() for path in EXAMPLES}
    assert rooms >= {"objectives/losses", "evaluation/metrics", "evaluation/metrics/captions"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    failed, attempted = doctest.testmod(module)
    assert attempted > 0 and failed == 0
