"""Mesh, logical axis names, the rule table that maps one to the other, and `constrain`.

Mesh axes: `data` and `fsdp` carry the batch; `fsdp` and `tensor` carry the parameters. All are `AxisType.Auto`
and the mesh is entered with `jax.set_mesh` (`with mesh:` would drop every constraint silently). Where the devices
belong to several slices, which a slower network joins, `data` crosses it: it carries one gradient sum a step.
"""

import enum
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from coca_jax.config import MeshConfig, ModelConfig
from coca_jax.errors import CocaError

MESH_AXES = ("data", "fsdp", "tensor")

# Models with fewer parameters are replicated by default: with AdamW and gradients they take 1.6 GB a device at most.
_REPLICATED_PARAMETERS = 100_000_000
_LEAST_WIDTH = 8  # of the model's width on each device: the height of a TPU's tile, below which memory is padding
_LARGE_PARAMETER = 2**22  # numbers; a parameter of so many must be sharded where any is


class Axis(str, enum.Enum):
    """What an array's axis means. A misspelt name is an AttributeError, an unmapped one a KeyError."""

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
    CHANNELS_IN = "channels_in"  # of convolutions and of patches
    KERNEL = "kernel"


RULES: dict[Axis, str | tuple[str, ...] | None] = {
    Axis.BATCH: ("data", "fsdp"),
    Axis.LOOKUP_BATCH: "data",
    Axis.LENGTH: None,
    Axis.MICROBATCHES: None,
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
    used = [name for entry in entries for name in _mesh_axes(entry)]
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


def constrain_tree(tree: Any, logical: Any) -> Any:
    """A tree of arrays, laid out as its tree of logical axes says."""
    return jax.tree.map(lambda axes, x: constrain(x, *axes), logical, tree, is_leaf=_is_axes)


def mesh_shape(config: MeshConfig, model: ModelConfig | None, devices: int, slices: int = 1) -> tuple[int, int, int]:
    """(data, fsdp, tensor) for so many devices: what the config names, and a choice for each 0 in it.

    Of data and fsdp alone, the one that is 0 takes what is left. With both 0, models below 100M parameters are
    replicated (fsdp 1), and others are spread as thinly as is useful: fsdp is the largest divisor of a slice's devices
    that divides every width that it shards and leaves at least 8 of the model's to each device. The giant's
    1408 = 128 * 11 so gets at most 128, base and large on a large pod 64 and 128; data takes the rest.

    Args:
      config: sizes of the mesh's axes, 0 where they are to be chosen.
      model: what the choice is made for; None: it is replicated.
      devices: all devices of all slices.
      slices: groups of devices, of equal size, between which the network is slow. No chosen fsdp reaches over it.

    Raises:
      CocaError: the sizes do not multiply to the number of devices.
    """
    data, fsdp, tensor = config.data, config.fsdp, config.tensor

    def left(*axes):
        return max(devices // max(math.prod(axes), 1), 1)

    if not fsdp:
        fsdp = left(data, tensor) if data else _useful_fsdp(model, left(slices, tensor))
    shape = (data or left(fsdp, tensor), fsdp, tensor)
    if math.prod(shape) != devices:
        raise CocaError(
            f"train.mesh asks for data x fsdp x tensor = {' x '.join(map(str, shape))} devices, but there are "
            f"{devices}: change train.mesh so that the product is {devices}"
        )
    return shape


def _useful_fsdp(model: ModelConfig | None, devices: int) -> int:
    if model is None or _parameters_about(model) < _REPLICATED_PARAMETERS:
        return 1
    widths = math.gcd(model.width, *model.stem_widths)

    def useful(ways):
        return devices % ways == widths % ways == 0 and model.width // ways >= _LEAST_WIDTH

    return max(filter(useful, range(1, model.width // _LEAST_WIDTH + 1)), default=1)


def _parameters_about(model: ModelConfig) -> int:
    """The number of parameters to a few per cent: kernels and tables."""
    image, text, width = model.image, model.text, model.width

    def block(attentions, mlp):
        return 4 * attentions * width * width + 2 * width * mlp

    encoder = 0 if image.kind == "precomputed" else image.layers * block(1, image.mlp)
    poolers = 2 * 4 * model.pooler.hidden_multiple * width * width
    decoder = text.unimodal_layers * block(1, text.mlp) + text.multimodal_layers * block(2, text.mlp)
    return encoder + poolers + decoder + 2 * text.vocabulary_size * width


def make_mesh(config: MeshConfig, model: ModelConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of `devices` (by default all that there are), of the shape that `mesh_shape` gives.

    Raises:
      CocaError: the axes' sizes do not multiply to the number of devices, or the slices do not fit them.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, model, len(devices), slice_count(devices))
    return Mesh(device_grid(shape, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def slice_count(devices: Sequence[Any]) -> int:
    """How many slices (of TPUs; of GPUs: groups on one fast network) the devices belong to."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def device_grid(shape: tuple[int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array [data, fsdp, tensor] in which neighbours are near each other in the machine.

    Over several slices, each slice is a block of the `data` axis. An explicit mesh whose data does not divide by the
    number of slices is taken at its word: then fsdp crosses the slow network too.

    Raises:
      CocaError: the tensor axis would have to cross slices.
    """
    slices = slice_count(devices)
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    across_data = math.gcd(shape[0], slices)
    across_fsdp = slices // across_data
    if shape[1] % across_fsdp:
        raise CocaError(
            f"train.mesh = {' x '.join(map(str, shape))} does not fit {slices} slices of "
            f"{len(devices) // slices} devices: make train.mesh.data a multiple of {slices}"
        )
    inside = (shape[0] // across_data, shape[1] // across_fsdp, shape[2])
    return mesh_utils.create_hybrid_device_mesh(
        inside, (across_data, across_fsdp, 1), devices, allow_split_physical_axes=True
    )


def check_parameters(mesh: Mesh, params: Any, logical: Any) -> None:
    """Refuses a mesh on which a parameter cannot be laid out, or a large one would not be.

    Args:
      params: a tree of arrays or ShapeDtypeStructs.
      logical: its tree of logical axes.

    Raises:
      CocaError: a dimension does not divide over its mesh axes, or a large parameter is left whole on every device of a
        mesh that shards parameters. The parameter is named.
    """
    names = jax.tree.leaves(logical, is_leaf=_is_axes)
    for (path, x), axes in zip(jax.tree_util.tree_leaves_with_path(params), names, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = 1
        for axis, size, entry in zip(axes, x.shape, spec(*axes), strict=True):
            ways = math.prod(mesh.shape[mesh_axis] for mesh_axis in _mesh_axes(entry))
            if size % ways:
                raise CocaError(
                    f"the parameter {name} has {axis.value} = {size}, which does not divide over {entry} = {ways}: "
                    f"set train.mesh.{entry} to a divisor of {size}"
                )
            parts *= ways
        if parts == 1 and math.prod(x.shape) >= _LARGE_PARAMETER and mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
            raise CocaError(
                f"the parameter {name} of {math.prod(x.shape):,} numbers would lie whole on every device: give one of "
                f"its axes ({', '.join(axis.value for axis in axes)}) a rule in coca_jax/distributed/sharding.py, or set "
                f"train.mesh.fsdp"
            )


def shardings(mesh: Mesh, logical: Any) -> Any:
    """A tree of NamedSharding for a tree of tuples of logical axes."""
    return jax.tree.map(lambda names: NamedSharding(mesh, spec(*names)), logical, is_leaf=_is_axes)


def _is_axes(node: Any) -> bool:
    return type(node) is tuple and all(isinstance(axis, Axis) for axis in node)


def _mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry or ()


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, spec(Axis.BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(mesh: Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Raises CocaError where a part of the global batch does not divide over the mesh's batch axes."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (ways * microbatches):
        parts = f" in {microbatches} microbatches" if microbatches > 1 else ""
        raise CocaError(
            f"train.batch_size = {batch_size}{parts} does not divide over data x fsdp = {ways} devices: "
            f"make it a multiple of {ways * microbatches}"
        )
