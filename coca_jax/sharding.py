"""Mesh, logical axis names, the rule table that maps one to the other, and `constrain`.

Mesh axes: `data` and `fsdp` carry the batch; `fsdp` and `tensor` carry the parameters. All are `AxisType.Auto`
and the mesh is entered with `jax.set_mesh` (`with mesh:` would drop every constraint silently).
"""

import enum
import math
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from coca_jax.config import MeshConfig
from coca_jax.errors import CocaError

MESH_AXES = ("data", "fsdp", "tensor")


class Axis(str, enum.Enum):
    """What an array's axis means. A misspelt name is an AttributeError, an unmapped one a KeyError."""

    BATCH = "batch"
    LENGTH = "length"  # text positions, image tokens, queries, pixels: never sharded
    ACTIVATION_WIDTH = "activation_width"
    ACTIVATION_HEADS = "activation_heads"
    ACTIVATION_MLP = "activation_mlp"
    ACTIVATION_VOCABULARY = "activation_vocabulary"
    LAYERS = "layers"
    WIDTH = "width"  # a parameter's model width
    HEADS = "heads"
    HEAD_DIM = "head_dim"
    MLP = "mlp"
    VOCABULARY = "vocabulary"
    QUERIES = "queries"
    CHANNELS_IN = "channels_in"  # of convolutions and of patches
    KERNEL = "kernel"


RULES: dict[Axis, str | tuple[str, ...] | None] = {
    Axis.BATCH: ("data", "fsdp"),
    Axis.LENGTH: None,
    Axis.ACTIVATION_WIDTH: None,
    Axis.ACTIVATION_HEADS: "tensor",
    Axis.ACTIVATION_MLP: "tensor",
    Axis.ACTIVATION_VOCABULARY: "tensor",
    Axis.LAYERS: None,
    Axis.WIDTH: "fsdp",
    Axis.HEADS: "tensor",
    Axis.HEAD_DIM: None,
    Axis.MLP: "tensor",
    Axis.VOCABULARY: "tensor",
    Axis.QUERIES: None,
    Axis.CHANNELS_IN: None,
    Axis.KERNEL: None,
}


def spec(*axes: Axis) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes.

    Raises:
      ValueError: two axes would take the same mesh axis.
    """
    entries = [RULES[axis] for axis in axes]
    used = [name for entry in entries if entry for name in ((entry,) if isinstance(entry, str) else entry)]
    if len(used) != len(set(used)):
        raise ValueError(f"the logical axes {[axis.name for axis in axes]} use a mesh axis twice: {entries}")
    return PartitionSpec(*entries)


def constrain(x: jax.Array, *axes: Axis) -> jax.Array:
    """`x`, laid out over the mesh as its logical axes say; unchanged where no mesh is set."""
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes for an array of shape {x.shape}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def make_mesh(config: MeshConfig) -> jax.sharding.Mesh:
    """The mesh of all devices.

    Raises:
      CocaError: the axes' sizes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    fixed = config.fsdp * config.tensor
    data = config.data or max(devices // max(fixed, 1), 1)
    shape = (data, config.fsdp, config.tensor)
    if math.prod(shape) != devices:
        raise CocaError(
            f"train.mesh asks for data x fsdp x tensor = {' x '.join(map(str, shape))} devices, but there are "
            f"{devices}: change train.mesh so that the product is {devices}"
        )
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def shardings(mesh: jax.sharding.Mesh, logical: Any) -> Any:
    """A tree of NamedSharding for a tree of tuples of logical axes."""
    is_names = lambda node: type(node) is tuple and all(isinstance(axis, Axis) for axis in node)
    return jax.tree.map(lambda names: NamedSharding(mesh, spec(*names)), logical, is_leaf=is_names)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The sharding of every array of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, spec(Axis.BATCH))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(mesh: jax.sharding.Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Raises CocaError where a part of the global batch does not divide over the mesh's batch axes."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (ways * microbatches):
        parts = f" in {microbatches} microbatches" if microbatches > 1 else ""
        raise CocaError(
            f"train.batch_size = {batch_size}{parts} does not divide over data x fsdp = {ways} devices: "
            f"make it a multiple of {ways * microbatches}"
        )
