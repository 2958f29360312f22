"""`model_info.txt`: a table of a model's parameters."""

import math
from typing import Any

from etils import epath

from coca_jax.distributed.sharding import spec
from coca_jax.objectives.base import by_name
from coca_jax.storage.files import write_atomically


def write_model_info(path: epath.Path, params: Any, logical: Any) -> None:
    """Writes a table of every parameter's name, shape, logical axes, mesh axes and size, and the totals of the modules."""
    rows = [("name", "shape", "logical axes", "sharding", "parameters")]
    totals: dict[str, int] = {}
    axes = by_name(logical)
    for name, leaf in sorted(by_name(params).items()):
        size, module = math.prod(leaf.shape), name.split("/")[0]
        totals[module] = totals.get(module, 0) + size
        names = [axis.value for axis in axes[name]]
        rows.append((name, _list(leaf.shape), _list(names), _list(spec(*axes[name])), f"{size:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", *(f"{part}: {size:,}" for part, size in totals.items()), f"total: {sum(totals.values()):,}"]
    write_atomically(path, "\n".join(lines) + "\n")


def _list(items: Any) -> str:
    return "(" + ", ".join(str(item) for item in items) + ")"
