"""The device mesh: `data` and `fsdp` carry the batch, `fsdp` and `tensor` the parameters.

It is entered with `jax.set_mesh` (`with mesh:` would drop every constraint silently). Where a slower network joins several
slices of devices, `data` crosses it: it carries one gradient sum a step.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from coca_jax.config import MeshConfig, ModelConfig
from coca_jax.errors import CocaError

MESH_AXES = ("data", "fsdp", "tensor")

# Models with fewer parameters are replicated by default: with AdamW and gradients they take 1.6 GB a device at most.
_REPLICATED_PARAMETERS = 100_000_000
_LEAST_WIDTH = 8  # of the model's width on each device: the height of a TPU's tile, below which memory is padding


def mesh_shape(config: MeshConfig, model: ModelConfig | None, devices: int, slices: int = 1) -> tuple[int, int, int]:
    """(data, fsdp, tensor) for a number of devices: the config's sizes, and a choice for each 0 among them.

    If only one of data and fsdp is 0, it takes the remaining devices. With both 0, models below 100M parameters are
    replicated (fsdp 1), and others are spread as thinly as is useful: fsdp is the largest divisor of a slice's devices
    that divides every width that it shards and leaves at least 8 of the model's to each device. The giant's
    1408 = 128 * 11 allows at most 128; base and large get 64 and 128 on a large pod; data takes the rest.

    Args:
      model: the model that is laid out; None: it is replicated.
      slices: number of equal groups of the devices, between which the network is slow.

    Raises:
      CocaError: the sizes do not multiply to the number of devices.
    """
    data, fsdp, tensor = config.data, config.fsdp, config.tensor

    def remaining(*axes: int) -> int:
        return max(devices // max(math.prod(axes), 1), 1)

    if not fsdp:
        fsdp = remaining(data, tensor) if data else _useful_fsdp(model, remaining(slices, tensor))
    shape = (data or remaining(fsdp, tensor), fsdp, tensor)
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

    def useful(ways: int) -> bool:
        return devices % ways == widths % ways == 0 and model.width // ways >= _LEAST_WIDTH

    return max(filter(useful, range(1, model.width // _LEAST_WIDTH + 1)), default=1)


def _parameters_about(model: ModelConfig) -> int:
    """The number of parameters, accurate to a few per cent: kernels and embedding tables only."""
    image, text, width = model.image, model.text, model.width
    encoder = 0 if image.kind == "precomputed" else image.layers * (4 * width + 2 * image.mlp)
    poolers = 2 * 4 * model.pooler.hidden_multiple * width
    decoder = text.unimodal_layers * (4 * width + 2 * text.mlp) + text.multimodal_layers * (8 * width + 2 * text.mlp)
    return width * (encoder + poolers + decoder + 2 * text.vocabulary_size)


def make_mesh(config: MeshConfig, model: ModelConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of `devices` (by default all), of the shape that `mesh_shape` gives; with its errors and `device_grid`'s."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, model, len(devices), slice_count(devices))
    return Mesh(device_grid(shape, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def slice_count(devices: Sequence[Any]) -> int:
    """The number of slices (for GPUs, groups on one fast network) that the devices belong to."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def device_grid(shape: tuple[int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """The devices as an array [data, fsdp, tensor] in which neighbours are near each other in the machine.

    Over several slices, each slice is a block of the `data` axis. With an explicit mesh whose data does not divide by
    the number of slices, fsdp crosses the slow network too; a CocaError if tensor would have to.
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
