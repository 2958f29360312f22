"""How base, large and giant are laid out, as tables that a person can read: tests/golden/sharding_*.txt.

After a change that means to lay them out differently, write the tables anew and read what git says of them:

    COCA_WRITE_GOLDEN=1 python -m pytest tests/distributed/test_golden_sharding.py
"""

import difflib
import math
import os
import pathlib

import jax
import pytest

from coca_jax import config as config_lib
from coca_jax.distributed import sharding
from coca_jax.models import coca

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
AGAIN = "if that is meant, run COCA_WRITE_GOLDEN=1 python -m pytest tests/distributed/test_golden_sharding.py and commit the table"


def _table(variant: str) -> str:
    """Every parameter's name, shape, logical axes and mesh axes; nothing is allocated."""
    model = coca.Coca(config_lib.variant(variant))
    params, logical = coca.abstract_parameters(model)
    names = jax.tree.leaves(logical, is_leaf=lambda node: type(node) is tuple)
    rows = [("parameter", "shape", "logical axes", "mesh axes")]
    for (path, x), axes in zip(jax.tree_util.tree_leaves_with_path(params), names, strict=True):
        rows.append(
            (
                jax.tree_util.keystr(path, simple=True, separator="/"),
                " x ".join(map(str, x.shape)) or "scalar",
                " x ".join(axis.value for axis in axes) or "-",
                " x ".join(entry or "whole" for entry in sharding.spec(*axes)) or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
    return "\n".join([*lines, "", f"{len(rows) - 1} arrays, {total:,} parameters", ""])


@pytest.mark.parametrize("variant", ["base", "large", "giant"])
def test_the_sharding_table_is_the_golden_one(variant):
    path, found = GOLDEN / f"sharding_{variant}.txt", _table(variant)
    if os.environ.get("COCA_WRITE_GOLDEN"):
        path.write_text(found)
    golden = path.read_text()
    if found != golden:
        changes = difflib.unified_diff(golden.splitlines(), found.splitlines(), str(path), "found", lineterm="", n=0)
        pytest.fail("\n".join([*changes, AGAIN]), pytrace=False)
