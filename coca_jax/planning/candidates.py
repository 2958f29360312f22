"""The best mesh, rematerialisation and microbatches for a machine: many by arithmetic, the few best by the compiler."""

import dataclasses
from collections.abc import Callable, Iterator

from coca_jax.config import Config, MeshConfig
from coca_jax.distributed.mesh import make_mesh, mesh_shape
from coca_jax.errors import CocaError
from coca_jax.planning.cost import COMFORTABLE, Cost, compiled_cost
from coca_jax.planning.forecast import estimate
from coca_jax.planning.topology import Topology, compile_only_devices
from coca_jax.trainer import train_step

_REMAT = ("none", "dots", "attention", "full")
_MOST_MICROBATCHES = 64
_UNSURE = 1.5  # estimates of memory that exceed what is comfortable by less than this are worth a compilation


def measure(config: Config, topology: Topology) -> Cost:
    """The cost of a config's step on a machine: from the compiler for TPUs, by arithmetic for all others.

    Raises:
      CocaError: config and machine do not fit each other, or the compiler is missing or fails.
    """
    if not topology.chip.torus:
        return estimate(train_step.build(config, train_step.abstract_mesh(config, topology.devices)), topology)
    mesh = make_mesh(config.train.mesh, config.model, compile_only_devices(topology))
    return compiled_cost(train_step.build(config, mesh), topology)


def candidates(config: Config, topology: Topology) -> list[tuple[Config, Cost]]:
    """Variations of a config that may fit, with their estimated costs: the fastest first, then the fewest bytes sent.

    Raises:
      CocaError: nothing comes near fitting.
    """
    estimates = []
    for candidate in _variations(config, topology.devices):
        try:
            built = train_step.build(candidate, train_step.abstract_mesh(candidate, topology.devices))
        except CocaError:  # this mesh cannot carry this model or batch
            continue
        estimates.append((candidate, estimate(built, topology)))
    near = [(c, cost) for c, cost in estimates if cost.memory.share <= COMFORTABLE * _UNSURE]
    if not near:
        raise CocaError(
            f"no variation that was tried comes near fitting {topology}: take more chips or a lower train.batch_size"
        )
    return sorted(near, key=lambda pair: (pair[1].step_seconds, pair[1].sent or 0))


def best(
    ranked: list[tuple[Config, Cost]], measure: Callable[[Config], Cost], tries: int, report: Callable[[Cost], None]
) -> Cost:
    """The first of the ranked candidates that fits comfortably when it is compiled.

    The compiled size of one corrects the estimates of the others.

    Args:
      ranked: as `candidates` gives them.
      measure: compiles a candidate.
      tries: how many to compile at most.
      report: called with the cost of each one compiled.

    Raises:
      CocaError: none of those tried fits.
    """
    correction, compiled = 1.0, 0
    for candidate, guess in ranked:
        if compiled == tries:
            break
        if compiled and guess.memory.share * correction > COMFORTABLE:
            continue
        cost = measure(candidate)
        report(cost)
        compiled += 1
        if cost.memory.share <= COMFORTABLE:
            return cost
        correction = cost.memory.peak / guess.memory.peak
    raise CocaError(f"none of the {compiled} candidates that were compiled fits: allow more with --tries")


def _variations(config: Config, devices: int) -> Iterator[Config]:
    """The config with every promising mesh, remat policy and number of microbatches."""
    tensor = config.train.mesh.tensor
    sizes = [fsdp for fsdp in _divisors(devices // tensor) if config.model.width % fsdp == 0]
    automatic = mesh_shape(dataclasses.replace(config.train.mesh, data=0, fsdp=0), config.model, devices)[1]
    for fsdp in sorted({automatic, *(size for size in sizes if 4 * size >= automatic)}):
        mesh = MeshConfig(data=devices // tensor // fsdp, fsdp=fsdp, tensor=tensor)
        parts = 1
        while parts <= _MOST_MICROBATCHES and config.train.batch_size % (devices // tensor * parts) == 0:
            for remat in _REMAT:
                yield dataclasses.replace(
                    config,
                    model=dataclasses.replace(config.model, remat=remat),
                    train=dataclasses.replace(config.train, mesh=mesh, microbatches=parts),
                )
            parts *= 2


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
