"""Machines by name, such as v4:8x16x16 or h100:256, and devices of TPU pods that exist for the compiler only."""

import dataclasses
import functools
import math
import os
import re
from typing import Any

from coca_jax.distributed import chips
from coca_jax.errors import CocaError


@dataclasses.dataclass(frozen=True)
class Topology:
    """A chip, and how many of them lie along each axis of the machine's network."""

    chip: chips.Chip
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse(text: str) -> Topology:
    """The machine that a text such as "v5e:16x16" names.

    Raises:
      CocaError: the chip is not known, or its network does not have that many axes.
    """
    name, _, shape = text.partition(":")
    chip = chips.chip(name)
    axes = max(chip.torus, 1)
    if not re.fullmatch(r"[1-9]\d*" + r"x[1-9]\d*" * (axes - 1), shape):
        example = f"{chip.name}:{ {1: '256', 2: '16x16', 3: '8x8x8'}[axes] }"
        raise CocaError(f"{text!r} is no topology: {chip.name} takes {axes} axis sizes, such as {example}")
    return Topology(chip, tuple(map(int, shape.split("x"))))


@functools.cache
def compile_only_devices(topology: Topology) -> list[Any]:
    """The machine's devices, for which programs can be compiled but not run. Needs libtpu, and no TPU.

    Raises:
      CocaError: libtpu is not installed, or does not know this machine.
    """
    # By default libtpu locks the chips of this host for one process; a compiler needs none, so that several may run.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    # For libtpu, which would otherwise ask Google Cloud's metadata server which host of which pod this is.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    chip = topology.chip
    os.environ["TPU_ACCELERATOR_TYPE"] = f"{chip.slices}-{topology.devices * chip.units}"
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise CocaError("compiling for TPUs needs libtpu: pip install '.[plan]' (Linux on x86-64 only)") from None
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # A v4 chip's two cores work as one; without this they would be devices of their own.
    options = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
    try:
        return list(topologies.get_topology_desc(str(topology), "tpu", **options).devices)
    except JaxRuntimeError as error:
        raise CocaError(f"libtpu cannot describe {topology}: {str(error).splitlines()[0]}") from None
