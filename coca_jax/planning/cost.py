"""The cost of one step on a machine.

Memory and communication come from the compiled program or from `forecast`, FLOPs always from the jaxpr. The times are
bounds: what the step would take if compute, memory and network each ran at the chip's peak and hid each other.
"""

import dataclasses
import re
import time
from typing import Any

from jax.errors import JaxRuntimeError

from coca_jax.config import Config, MeshConfig
from coca_jax.errors import CocaError
from coca_jax.planning import collectives
from coca_jax.planning.collectives import Traffic
from coca_jax.planning.topology import Topology
from coca_jax.trainer.program import Program, bytes_per_device, model_flops, step_flops

COMFORTABLE = 0.9  # of the chip's memory; the rest is for fragmentation, for batches under way, for a newer compiler


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a chip."""

    parameters: int
    optimizer: int  # its state, and the average of the parameters if there is one
    batch: int  # the chip's rows of one batch
    temporaries: int  # activations, gradients, gathered parameters, and all else that lives within a step
    code: int
    peak: int  # the most that is in use at once
    available: int

    @property
    def share(self) -> float:
        return self.peak / self.available


@dataclasses.dataclass(frozen=True)
class Cost:
    """One step's cost."""

    topology: Topology
    config: Config  # with the size of every mesh axis
    memory: Memory
    model_flops: float  # that the step needs by convention, over all chips
    step_flops: float  # that it computes
    traffic: dict[str, Traffic] | None  # by kind of collective; None: the program cannot be read
    compile_seconds: float | None = None  # None: memory and traffic are estimates
    unread: str = ""  # why traffic is None

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
        compute = self.step_flops / self.topology.devices / chip.flops
        bounds = {"compute": compute, "memory": moved / chip.hbm_bandwidth}
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
        return self.config.train.batch_size / self.topology.devices / self.step_seconds


def compiled_cost(program: Program, topology: Topology) -> Cost:
    """The cost of a program, compiled for the machine's devices. The compiler takes minutes for a large model.

    Too little memory is a result like any other; and what cannot be read of a compiled program is left out.

    Raises:
      CocaError: the compiler fails for another reason than memory.
    """
    started = time.perf_counter()
    temporaries, code, traffic, unread = 0, 0, None, ""
    try:
        executable = program.compile()
    except JaxRuntimeError as error:
        peak = _out_of_memory(str(error))
        if peak is None:
            raise CocaError(f"the compiler cannot compile the step for {topology}: {_first_line(error)}") from error
        unread = "a step that does not fit is not compiled to its end"
    else:
        stats: Any = executable.memory_analysis()  # typed as optional; compilers for TPUs and CPUs have it
        # Beyond the arguments; on TPUs the code lies in the same memory.
        temporaries = stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        code = stats.generated_code_size_in_bytes
        peak = code + max(stats.peak_memory_in_bytes, stats.argument_size_in_bytes + temporaries)
        try:
            traffic = collectives.of_hlo(executable.as_text() or "", topology.devices)
        except (JaxRuntimeError, ValueError) as error:  # some compilers cannot print some of their programs
            unread = f"the compiled program cannot be read: {_first_line(error)}"
    seconds = time.perf_counter() - started
    return of_program(program, topology, temporaries, traffic, code, peak, seconds, unread)


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def of_program(
    program: Program,
    topology: Topology,
    temporaries: int,
    traffic: dict[str, Traffic] | None,
    code: int = 0,
    peak: int = 0,
    compile_seconds: float | None = None,
    unread: str = "",
) -> Cost:
    """A program's cost, with its FLOPs counted; without a `peak` everything is in memory at once."""
    config, state = program.config, program.plan.abstract
    parameters, batch = bytes_per_device(state.params), bytes_per_device(program.batch)
    optimizer = bytes_per_device((state.opt_state, state.average))
    peak = peak or parameters + optimizer + batch + temporaries
    memory = Memory(parameters, optimizer, batch, temporaries, code, peak, topology.chip.hbm)
    train = dataclasses.replace(config.train, mesh=MeshConfig(*program.mesh.shape.values()))
    placed = dataclasses.replace(config, train=train)
    flops = model_flops(config), step_flops(config)
    return Cost(topology, placed, memory, *flops, traffic, compile_seconds, unread)


def _out_of_memory(message: str) -> int | None:
    """Bytes that the program would need, from the compiler's error; None if the error is another one."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    # "Used 19.9G of 15.75G hbm", or "the total memory required for HLO temporaries (300.00G) exceeds …"
    amounts = re.findall(r"(?:Used |\()([\d.]+)([KMGT]?)(?: of|\))", message[:1_000])
    return max((round(float(number) * units[unit]) for number, unit in amounts), default=2**62)
