"""The cost of one step on a machine.

Memory and communication come from the compiled program or by arithmetic, FLOPs always from the jaxpr. The times are
bounds: what the step would take if compute, memory and network each ran at the chip's peak and hid each other.
"""

import dataclasses
import re
import time
from typing import Any

from jax.errors import JaxRuntimeError

from coca_jax.config import Config, MeshConfig, ModelConfig
from coca_jax.errors import CocaError
from coca_jax.models.image_encoder import token_count
from coca_jax.planning import collectives
from coca_jax.planning.collectives import Traffic
from coca_jax.planning.topology import Topology
from coca_jax.trainer.train_step import TrainStep, abstract_mesh, build, bytes_per_device, model_flops, step_flops

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


def compiled_cost(program: TrainStep, topology: Topology) -> Cost:
    """The cost of a program, compiled for the machine's devices. The compiler takes minutes for a large model.

    Too little memory is a result like any other; and what cannot be read of a compiled program is left out.

    Raises:
      CocaError: the compiler fails for another reason than memory.
    """
    started = time.perf_counter()
    temporaries, code, traffic, unread = 0, 0, None, ""
    try:
        executable = program.compile()
        seconds = time.perf_counter() - started
    except JaxRuntimeError as error:
        seconds = time.perf_counter() - started
        peak = _out_of_memory(str(error))
        if peak is None:
            reason = str(error).splitlines()[0]
            raise CocaError(f"the compiler cannot compile the step for {topology}: {reason}") from error
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
            unread = f"the compiled program cannot be read: {str(error).splitlines()[0]}"
    return _cost(program, topology, temporaries, code, peak, traffic=traffic, compile_seconds=seconds, unread=unread)


def _cost(program: TrainStep, topology: Topology, temporaries: int, code: int = 0, peak: int = 0, **found: Any) -> Cost:
    """A program's cost, with its FLOPs counted; without a `peak` everything is in memory at once."""
    config, state = program.config, program.state
    parameters, batch = bytes_per_device(state.params), bytes_per_device(program.batch)
    optimizer = bytes_per_device((state.opt_state, state.average))
    peak = peak or parameters + optimizer + batch + temporaries
    memory = Memory(parameters, optimizer, batch, temporaries, code, peak, topology.chip.hbm)
    train = dataclasses.replace(config.train, mesh=MeshConfig(*program.mesh.shape.values()))
    placed = dataclasses.replace(config, train=train)
    return Cost(topology, placed, memory, model_flops(config), step_flops(config), **found)


def _out_of_memory(message: str) -> int | None:
    """Bytes that the program would need, from the compiler's error; None if the error is another one."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    # "Used 19.9G of 15.75G hbm", or "the total memory required for HLO temporaries (300.00G) exceeds …"
    amounts = re.findall(r"(?:Used |\()([\d.]+)([KMGT]?)(?: of|\))", message[:1_000])
    return max((round(float(number) * units[unit]) for number, unit in amounts), default=2**62)


def estimated_cost(config: Config, topology: Topology) -> Cost:
    """The cost by arithmetic alone, for any chip, with memory good to a quarter or so; CocaError if the mesh cannot be."""
    program = build(config, abstract_mesh(config, topology.devices))
    parameters = bytes_per_device(program.state.params)  # in float32
    width = 2 if config.model.dtype == "bfloat16" else 4  # bytes of a number in the computation
    temporaries = round(_temporaries(program, parameters, width))
    return _cost(program, topology, temporaries, traffic=_traffic(program, parameters, width))


def _temporaries(program: TrainStep, parameters: int, width: int) -> float:
    """Bytes a chip of activations, gradients and gathered parameters: what lives within a step."""
    train, (data, fsdp, tensor) = program.config.train, program.mesh.shape.values()
    model, text, image = program.config.model, program.config.model.text, program.config.model.image
    pairs = train.batch_size / (data * fsdp) / train.microbatches  # a chip's, of one microbatch
    tokens = token_count(image)
    stacks = (  # layers; positions, MLP width, positions that cross-attention reads
        (image.layers, (tokens, image.mlp, 0)),
        (text.unimodal_layers, (text.length + 1, text.mlp, 0)),
        (text.multimodal_layers, (text.length, text.mlp, model.pooler.queries or tokens)),
    )
    kept = sum(layers * _kept(model, model.remat, *sizes) for layers, sizes in stacks)
    working = max(_kept(model, "none", *sizes) for _, sizes in stacks)
    logits = 4 * 3 * 8 * text.vocabulary_size / width / tensor  # of a chunk of 8 positions, in float32, with gradients
    layer = parameters * fsdp * width / 4 / sum(layers for layers, _ in stacks)  # gathered: two, and a gradient
    embeddings = 4 * 4 * train.batch_size * model.width  # two gathered, with their gradients
    gradients = parameters * (2 if train.microbatches > 1 else 1)
    return pairs * (kept + working + logits) * width + 3 * layer + embeddings + gradients


def _kept(model: ModelConfig, remat: str, positions: int, mlp: int, read: int) -> float:
    """How many numbers a block saves for the backward pass, for one pair, under a remat policy.

    `read` is how many positions its cross-attention reads, 0 for a block without one.
    """
    width, heads = model.width, model.heads
    kept = positions * width
    if remat in ("attention", "dots", "none"):
        kept += 4 * positions * width + (2 * (positions + read) * width if read else 0)
    if remat in ("dots", "none"):
        kept += positions * (mlp + width)
    if remat == "none":
        kept += positions * (8 * width + 2 * mlp) + 2 * 4 * heads * positions * (positions + read)
    return kept


def _traffic(program: TrainStep, parameters: int, width: int) -> dict[str, Traffic]:
    """Bytes that each chip sends for its parameters: gathered for each pass in the dtype of the computation, gradients
    summed in float32, all that for each microbatch. What activations and embeddings need is a few per cent of it."""
    parts, (data, fsdp, _) = program.config.train.microbatches, program.mesh.shape.values()
    passes = 2 * parts + (parts if parts > 1 else 0)  # of several parts the embeddings come first
    sent = {
        "all-gather": passes * parameters * width / 4 * (fsdp - 1),
        "reduce-scatter": parts * parameters * (fsdp - 1),
        "all-reduce": parts * 2 * parameters * (data - 1) / data,
    }
    return {kind: Traffic(0, size) for kind, size in sent.items() if size}
