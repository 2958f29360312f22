"""One step's memory and communication by arithmetic: for chips without a compiler, and to choose what to compile."""

import dataclasses

from coca_jax.config import Config, ModelConfig
from coca_jax.planning import cost
from coca_jax.planning.collectives import Traffic
from coca_jax.planning.topology import Topology
from coca_jax.trainer.train_step import TrainStep, bytes_per_device


def estimate(program: TrainStep, topology: Topology) -> cost.Cost:
    """The cost by arithmetic alone, for any chip; memory is good to a quarter or so."""
    memory = cost.memory(program, topology)
    temporaries = round(_temporaries(program, memory))
    peak = memory.parameters + memory.optimizer + memory.batch + temporaries
    memory = dataclasses.replace(memory, temporaries=temporaries, peak=peak)
    return cost.of_program(program, topology, memory, _traffic(program), None)


def _temporaries(program: TrainStep, memory: cost.Memory) -> float:
    """Bytes a chip of activations, gradients and gathered parameters: what lives within a step."""
    config, (data, fsdp, tensor) = program.config, program.mesh.shape.values()
    model, text = config.model, config.model.text
    pairs = config.train.batch_size / (data * fsdp)  # a chip's
    part = pairs / config.train.microbatches
    width = 2 if model.dtype == "bfloat16" else 4
    tokens, queries = _token_counts(config)
    stacks = (  # layers; positions, MLP width, positions that cross-attention reads
        (model.image.layers, (tokens, model.image.mlp, 0)),
        (text.unimodal_layers, (text.length + 1, text.mlp, 0)),
        (text.multimodal_layers, (text.length, text.mlp, queries)),
    )
    kept = sum(layers * kept_numbers(model, model.remat, *sizes) for layers, sizes in stacks)
    working = max(kept_numbers(model, "none", *sizes) for _, sizes in stacks)
    logits = 4 * 3 * 8 * text.vocabulary_size / width / tensor  # of a chunk of 8 positions, in float32, with gradients
    layer = memory.parameters * fsdp * width / 4 / sum(layers for layers, _ in stacks)  # gathered: two, and a gradient
    embeddings = 4 * 4 * config.train.batch_size * model.width  # two gathered, with their gradients
    gradients = memory.parameters * (2 if config.train.microbatches > 1 else 1)
    return part * (kept + working + logits) * width + 3 * layer + embeddings + gradients


def kept_numbers(model: ModelConfig, remat: str, positions: int, mlp: int, read: int) -> float:
    """Numbers that a block keeps of one pair for its backward pass under a remat policy; see `models.layers`.

    Args:
      model: for its width and heads.
      remat: the policy.
      positions: of the block's sequence.
      mlp: the width of its MLP.
      read: positions that its cross-attention reads; 0: it has none.
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


def _token_counts(config: Config) -> tuple[int, int]:
    """Image tokens, and those of them that the text decoder reads."""
    image = config.model.image
    tokens = image.tokens if image.kind == "precomputed" else (image.size // image.patch) ** 2
    return tokens, config.model.pooler.queries or tokens


def _traffic(program: TrainStep) -> dict[str, Traffic]:
    """Bytes that each chip sends for its parameters: gathered for each pass in the dtype of the computation, gradients
    summed in float32, all that for each microbatch. What activations and embeddings need is a few per cent of it."""
    config, (data, fsdp, _) = program.config, program.mesh.shape.values()
    parameters = bytes_per_device(program.state.params)  # a chip's, in float32
    width = 2 if config.model.dtype == "bfloat16" else 4
    parts = config.train.microbatches
    passes = 2 * parts + (parts if parts > 1 else 0)  # of several parts the embeddings come first
    sent = {
        "all-gather": passes * parameters * width / 4 * (fsdp - 1),
        "reduce-scatter": parts * parameters * (fsdp - 1),
        "all-reduce": parts * 2 * parameters * (data - 1) / data,
    }
    return {kind: Traffic(0, size) for kind, size in sent.items() if size}
