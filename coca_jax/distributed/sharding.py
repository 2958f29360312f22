"""Logical axis names, the rule table that maps them to mesh axes, and shardings made of both."""

import enum
import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from coca_jax.errors import CocaError

AnyMesh = Mesh | AbstractMesh  # one whose devices exist, or not
_LARGE_PARAMETER = 2**22  # numbers; a parameter this large must be sharded if any parameter is


class Axis(enum.StrEnum):
    """The meaning of an array's axis. A misspelt name is an AttributeError, or in `spec` a KeyError."""

    BATCH = "batch"
    LOOKUP_BATCH = "lookup_batch"  # the batch where a table is read whose width is sharded over `fsdp`
    LENGTH = "length"  # text positions, image tokens, queries, pixels: never sharded
    MICROBATCHES = "microbatches"
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
    CLASSES = "classes"
    CHANNELS_IN = "channels_in"  # of convolutions and of patches
    KERNEL = "kernel"


# Axes without an entry lie whole on every device.
RULES: dict[Axis, str | tuple[str, ...] | None] = dict.fromkeys(Axis) | {
    Axis.BATCH: ("data", "fsdp"),
    Axis.LOOKUP_BATCH: "data",
    Axis.ACTIVATION_HEADS: "tensor",
    Axis.ACTIVATION_MLP: "tensor",
    Axis.ACTIVATION_VOCABULARY: "tensor",
    Axis.WIDTH: "fsdp",
    Axis.HEADS: "tensor",
    Axis.MLP: "tensor",
    Axis.VOCABULARY: "tensor",
}


def mesh_axes(axis: Axis) -> tuple[str, ...]:
    """The mesh axes that a logical axis is split over."""
    entry = RULES[axis]
    return (entry,) if isinstance(entry, str) else entry or ()


def ways(mesh: AnyMesh, axis: Axis) -> int:
    """The number of parts that a logical axis is split into on a mesh."""
    return math.prod(mesh.shape[name] for name in mesh_axes(axis))


def spec(*axes: Axis) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes; a ValueError if two would take the same mesh axis."""
    entries = [RULES[axis] for axis in axes]
    used = [name for axis in axes for name in mesh_axes(axis)]
    if len(used) != len(set(used)):
        raise ValueError(f"the logical axes {[axis.name for axis in axes]} use a mesh axis twice: {entries}")
    return PartitionSpec(*entries)


def constrain(x: jax.Array, *axes: Axis) -> jax.Array:
    """`x`, constrained to the layout of its logical axes on the current mesh; unchanged if no mesh is set."""
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes for an array of shape {x.shape}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def constrain_tree(tree: Any, logical: Any) -> Any:
    """`constrain` over a tree of arrays and its tree of logical axes."""
    return jax.tree.map(lambda axes, x: constrain(x, *axes), logical, tree, is_leaf=_is_axes)


def check_parameters(mesh: AnyMesh, params: Any, logical: Any) -> None:
    """Refuses a mesh for a tree of arrays or ShapeDtypeStructs with a tree of their logical axes.

    Raises:
      CocaError: a dimension does not divide over its mesh axes, or a large parameter is replicated on a mesh that
        shards parameters. The parameter is named.
    """
    names = jax.tree.leaves(logical, is_leaf=_is_axes)
    for (path, x), axes in zip(jax.tree_util.tree_leaves_with_path(params), names, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for axis, size in zip(axes, x.shape, strict=True):
            if size % ways(mesh, axis):
                raise CocaError(
                    f"the parameter {name} has {axis.value} = {size}, which does not divide over {RULES[axis]} = "
                    f"{ways(mesh, axis)}: set train.mesh.{RULES[axis]} to a divisor of {size}"
                )
        parts = math.prod(ways(mesh, axis) for axis in axes)
        if parts == 1 and math.prod(x.shape) >= _LARGE_PARAMETER and mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
            raise CocaError(
                f"the parameter {name} of {math.prod(x.shape):,} numbers would be replicated on every device: set "
                f"train.mesh.fsdp, or give one of its axes ({', '.join(axis.value for axis in axes)}) a rule in sharding.py"
            )


def shardings(mesh: AnyMesh, logical: Any) -> Any:
    """A tree of NamedSharding for a tree of tuples of logical axes."""
    return jax.tree.map(lambda names: NamedSharding(mesh, spec(*names)), logical, is_leaf=_is_axes)


def _is_axes(node: Any) -> bool:
    return type(node) is tuple and all(isinstance(axis, Axis) for axis in node)


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The sharding of every array of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, spec(Axis.BATCH))


def check_batch_size(mesh: AnyMesh, batch_size: int, microbatches: int = 1) -> None:
    """Raises CocaError if a microbatch does not divide over the mesh's batch axes."""
    devices = ways(mesh, Axis.BATCH)
    if batch_size % (devices * microbatches):
        parts = f" in {microbatches} microbatches" if microbatches > 1 else ""
        raise CocaError(
            f"train.batch_size = {batch_size}{parts} does not divide over data x fsdp = {devices} devices: "
            f"make it a multiple of {devices * microbatches}"
        )
