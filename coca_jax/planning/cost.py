"""The cost of one step on a machine.

Memory and communication come from the compiled program or from `estimate`, FLOPs always from the jaxpr. The times are
bounds: what the step would take if compute, memory and network each ran at the chip's peak and hid each other.
"""

import dataclasses
import re
import time
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from coca_jax.errors import CocaError
from coca_jax.planning import collectives
from coca_jax.planning.topology import Topology
from coca_jax.trainer.train_step import TrainStep, bytes_per_device, model_flops, step_flops

COMFORTABLE = 0.9  # of the chip's memory; the rest is for fragmentation, for batches under way, for a newer compiler


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a chip.

    Attributes:
      optimizer: its state, and the average of the parameters if there is one.
      batch: one chip's rows of one batch.
      temporaries: activations, gradients, gathered parameters, and all else that lives within a step.
      code: the program itself.
      peak: the most that is in use at once.
      available: what the chip has for it.
    """

    parameters: int
    optimizer: int
    batch: int
    temporaries: int
    code: int
    peak: int
    available: int

    @property
    def share(self) -> float:
        return self.peak / self.available


@dataclasses.dataclass(frozen=True)
class Cost:
    """One step's cost.

    Attributes:
      model_flops: what the step needs by convention, over all chips; `step_flops`: what it computes.
      traffic: bytes that each chip sends, and how often, by kind of collective; None: the program cannot be read.
      compile_seconds: None if memory and traffic are estimates.
      unread: why traffic is None.
    """

    topology: Topology
    mesh: tuple[int, int, int]
    remat: str
    batch_size: int
    microbatches: int
    memory: Memory
    model_flops: float
    step_flops: float
    traffic: dict[str, collectives.Traffic] | None
    compile_seconds: float | None
    unread: str = ""

    @property
    def fits(self) -> bool:
        return self.memory.share <= 1

    @property
    def sent(self) -> float | None:
        """Bytes that each chip sends in a step."""
        return None if self.traffic is None else sum(traffic.bytes for traffic in self.traffic.values())

    @property
    def bounds(self) -> dict[str, float]:
        """Seconds a step, at the least, for compute, for memory and for the network of each chip, as far as known.

        Memory: the state is read and written once, and so is all that is temporary.
        """
        chip, memory = self.topology.chip, self.memory
        moved = 2 * (memory.parameters + memory.optimizer + memory.temporaries) + memory.batch
        bounds = {
            "compute": self.step_flops / self.topology.devices / chip.flops,
            "memory": moved / chip.hbm_bandwidth,
        }
        return bounds if self.sent is None else bounds | {"network": self.sent / chip.network_bandwidth}

    @property
    def step_seconds(self) -> float:
        """Lower bound of a step's time."""
        return max(self.bounds.values())

    @property
    def utilization(self) -> float:
        """Upper bound of model FLOPs utilisation (MFU)."""
        return self.model_flops / self.topology.devices / self.topology.chip.flops / self.step_seconds

    @property
    def pairs_per_second_per_chip(self) -> float:
        """Upper bound."""
        return self.batch_size / self.topology.devices / self.step_seconds


def compiled_cost(program: TrainStep, topology: Topology) -> Cost:
    """The cost of a program, compiled for the machine's devices. The compiler takes minutes for a large model.

    Too little memory is a result like any other; and what cannot be read of a compiled program is left out.

    Raises:
      CocaError: the compiler fails for another reason than memory.
    """
    started = time.perf_counter()
    try:
        executable = program.compile()
    except JaxRuntimeError as error:
        needed = _out_of_memory(str(error))
        if needed is None:
            raise CocaError(f"the compiler cannot compile the step for {topology}: {_first_line(error)}") from error
        seconds = time.perf_counter() - started
        unread = "a step that does not fit is not compiled to its end"
        return of_program(program, topology, memory(program, topology, peak=needed), None, seconds, unread)
    stats: Any = executable.memory_analysis()  # typed as optional; compilers for TPUs and CPUs have it
    # Beyond the arguments; on TPUs the code lies in the same memory.
    beyond_state = stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    code = stats.generated_code_size_in_bytes
    peak = max(stats.peak_memory_in_bytes, stats.argument_size_in_bytes + beyond_state) + code
    seconds = time.perf_counter() - started
    traffic, unread = _traffic(executable, topology.devices)
    return of_program(program, topology, memory(program, topology, beyond_state, code, peak), traffic, seconds, unread)


def _traffic(executable: jax.stages.Compiled, devices: int) -> tuple[dict[str, collectives.Traffic] | None, str]:
    """The collectives of a compiled program; or None, and why they cannot be read."""
    try:
        return collectives.of_hlo(executable.as_text() or "", devices), ""
    except (JaxRuntimeError, ValueError) as error:  # some compilers cannot print some of their programs
        return None, f"the compiled program cannot be read: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def of_program(
    program: TrainStep,
    topology: Topology,
    needed: Memory,
    traffic: dict[str, collectives.Traffic] | None,
    compile_seconds: float | None,
    unread: str = "",
) -> Cost:
    """A program's cost, with its FLOPs counted."""
    config = program.config
    return Cost(
        topology=topology,
        mesh=tuple(program.mesh.shape.values()),
        remat=config.model.remat,
        batch_size=config.train.batch_size,
        microbatches=config.train.microbatches,
        memory=needed,
        model_flops=model_flops(config),
        step_flops=step_flops(config),
        traffic=traffic,
        compile_seconds=compile_seconds,
        unread=unread,
    )


def memory(program: TrainStep, topology: Topology, temporaries: int = 0, code: int = 0, peak: int = 0) -> Memory:
    """The given figures, and those of the program's state and batch."""
    state = program.state
    return Memory(
        parameters=bytes_per_device(state.params),
        optimizer=bytes_per_device((state.opt_state, state.average)),
        batch=bytes_per_device(program.batch),
        temporaries=temporaries,
        code=code,
        peak=peak,
        available=topology.chip.hbm,
    )


def _out_of_memory(message: str) -> int | None:
    """Bytes that the program would need, from the compiler's error; None if the error is another one."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    # "Used 19.9G of 15.75G hbm", or "the total memory required for HLO temporaries (300.00G) exceeds …"
    amounts = re.findall(r"(?:Used |\()([\d.]+)([KMGT]?)(?: of|\))", message[:1_000])
    return max((round(float(number) * units[unit]) for number, unit in amounts), default=2**62)
