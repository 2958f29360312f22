"""`model_info.txt`: a table of a model's parameters."""

import math
from typing import Any

from etils import epath

from coca_jax.distributed.sharding import spec
from coca_jax.objectives.base import by_name
from coca_jax.pages.text_table import text_table
from coca_jax.storage.files import write_atomically


def write_model_info(path: epath.Path, params: Any, logical: Any) -> None:
    """Writes a table of every parameter's name, shape, logical axes, mesh axes and size, and the totals of the modules."""
    rows = [("name", "shape", "logical axes", "sharding", "parameters")]
    totals: dict[str, int] = {}
    axes = by_name(logical)
    for name, leaf in sorted(by_name(params).items()):
        size, module = math.prod(leaf.shape), name.split("/")[0]
        totals[module] = totals.get(module, 0) + size
        lists = (leaf.shape, [axis.value for axis in axes[name]], spec(*axes[name]))
        rows.append((name, *(f"({', '.join(map(str, items))})" for items in lists), f"{size:,}"))
    lines = [text_table(rows, "<<<<<"), "", *(f"{part}: {size:,}" for part, size in totals.items())]
    write_atomically(path, "\n".join([*lines, f"total: {sum(totals.values()):,}"]) + "\n")
