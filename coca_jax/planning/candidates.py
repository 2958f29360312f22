"""The best mesh, rematerialisation and microbatches for a machine: many by arithmetic, the few best by the compiler."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator

from coca_jax.config import Config, MeshConfig
from coca_jax.distributed.mesh import make_mesh, mesh_shape
from coca_jax.errors import CocaError
from coca_jax.planning import table
from coca_jax.planning.cost import COMFORTABLE, Cost, compiled_cost, estimated_cost
from coca_jax.planning.topology import Topology, compile_only_devices
from coca_jax.trainer import train_step

_REMAT = ("none", "dots", "attention", "full")
_MICROBATCHES = (1, 2, 4, 8, 16, 32, 64)
_UNSURE = 1.5  # estimates of memory that exceed what is comfortable by less than this are worth a compilation
_log = logging.getLogger(__name__)


def measure(config: Config, topology: Topology) -> Cost:
    """The cost of a config's step on a machine: from the compiler for TPUs, by arithmetic for all others.

    Raises:
      CocaError: config and machine do not fit each other, or the compiler is missing or fails.
    """
    if not topology.chip.torus:
        return estimated_cost(config, topology)
    mesh = make_mesh(config.train.mesh, config.model, compile_only_devices(topology))
    return compiled_cost(train_step.build(config, mesh), topology)


def search(config: Config, topology: Topology, tries: int) -> Cost:
    """The fastest variation of a config that fits comfortably when it is compiled, of `tries` at most.

    The compiled size of one corrects the estimates of the next.

    Raises:
      CocaError: none of those tried fits.
    """
    correction, compiled = 1.0, 0
    for candidate, guess in candidates(config, topology):
        if compiled == tries:
            break
        if compiled and guess.memory.share * correction > COMFORTABLE:
            continue
        cost = measure(candidate, topology)
        _log.info("%s", table.line(cost))
        compiled += 1
        if cost.memory.share <= COMFORTABLE:
            return cost
        correction = cost.memory.peak / guess.memory.peak
    raise CocaError(f"none of the {compiled} candidates that were compiled fits: allow more with --tries")


def candidates(config: Config, topology: Topology) -> list[tuple[Config, Cost]]:
    """Variations of a config that may fit, with their estimated costs: the fastest first, then the fewest bytes sent.

    Raises:
      CocaError: nothing comes near fitting.
    """
    near = []
    for candidate in _variations(config, topology.devices):
        try:
            cost = estimated_cost(candidate, topology)
        except CocaError:  # this mesh cannot carry this model or batch
            continue
        if cost.memory.share <= COMFORTABLE * _UNSURE:
            near.append((candidate, cost))
    if not near:
        raise CocaError(
            f"no variation that was tried comes near fitting {topology}: take more chips or a lower train.batch_size"
        )
    return sorted(near, key=lambda pair: (pair[1].step_seconds, pair[1].sent or 0))


def _variations(config: Config, devices: int) -> Iterator[Config]:
    """The config with every promising mesh, remat policy and number of microbatches."""
    train, width, tensor = config.train, config.model.width, config.train.mesh.tensor
    copies = devices // tensor
    automatic = mesh_shape(MeshConfig(tensor=tensor), config.model, devices)[1]
    larger = (n for n in range(1, copies + 1) if copies % n == 0 and width % n == 0 and 4 * n >= automatic)
    sizes = sorted({automatic, *larger})
    microbatches = [parts for parts in _MICROBATCHES if train.batch_size % (copies * parts) == 0]
    for fsdp, parts, remat in itertools.product(sizes, microbatches, _REMAT):
        mesh = MeshConfig(copies // fsdp, fsdp, tensor)
        yield dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=remat),
            train=dataclasses.replace(train, mesh=mesh, microbatches=parts),
        )
