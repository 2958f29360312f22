"""Facts of a model: the table of its parameters in `model_info.txt`, and its digest."""

import functools
import hashlib
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from coca_jax.config import ModelConfig, differences
from coca_jax.distributed.sharding import spec
from coca_jax.objectives.base import by_name
from coca_jax.pages.terminal import text_table
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


def model_digest(model: ModelConfig, params: Any, vocabulary: bytes) -> str:
    """16 hex digits of a model's shape (the keys of its config that are not their defaults), parameters and vocabulary.

    Parameters are summed on their devices, as integers: the order of the sum, and so the mesh, has no effect.
    """
    sums = jax.tree_util.tree_leaves_with_path(_checksums(params))
    digest = hashlib.sha256(vocabulary)
    digest.update(json.dumps(differences(model), sort_keys=True).encode())
    for path, value in sums:
        digest.update(f"{jax.tree_util.keystr(path)}={int(value)};".encode())
    return digest.hexdigest()[:16]


def _checksum(x: jax.Array) -> jax.Array:
    """uint32 of the bits of float32 numbers, each weighted by its place."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum((bits ^ (bits >> 15)) * (2 * place + 1) * jnp.uint32(2_654_435_761), dtype=jnp.uint32)


_checksums = jax.jit(functools.partial(jax.tree.map, _checksum))  # compiled once for all evaluations of a run
