"""A model's digest: hex digits that change if a parameter does, and are the same on every mesh."""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax.config import ModelConfig, differences


def model_digest(model: ModelConfig, params: Any, vocabulary: bytes) -> str:
    """16 hex digits of a model's shape (the keys of its config that are not their defaults), parameters and vocabulary.

    Parameters are summed on their devices, as integers: the order of the sum, and so the mesh, has no effect.
    """
    sums = jax.tree_util.tree_flatten_with_path(_checksums(params))[0]
    digest = hashlib.sha256(vocabulary)
    digest.update(json.dumps(differences(model), sort_keys=True).encode())
    for path, value in sums:
        digest.update(f"{jax.tree_util.keystr(path)}={int(value)};".encode())
    return digest.hexdigest()[:16]


@jax.jit  # compiled once for all evaluations of a run
def _checksums(params: Any) -> Any:
    return jax.tree.map(_checksum, params)


def _checksum(x: jax.Array) -> jax.Array:
    """uint32 of the bits of float32 numbers, each weighted by its place."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum((bits ^ (bits >> 15)) * (2 * place + 1) * jnp.uint32(2_654_435_761), dtype=jnp.uint32)
