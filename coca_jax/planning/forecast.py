"""One step's memory and communication by arithmetic: for chips without a compiler, and to choose what to compile."""

from coca_jax.config import ModelConfig
from coca_jax.planning.collectives import Traffic
from coca_jax.planning.cost import Cost, of_program
from coca_jax.planning.topology import Topology
from coca_jax.trainer.program import Program, bytes_per_device


def estimate(program: Program, topology: Topology) -> Cost:
    """The cost by arithmetic alone, for any chip; memory is good to a quarter or so."""
    parameters = bytes_per_device(program.plan.abstract.params)  # in float32
    width = 2 if program.config.model.dtype == "bfloat16" else 4  # bytes of a number in the computation
    temporaries = round(_temporaries(program, parameters, width))
    return of_program(program, topology, temporaries, _traffic(program, parameters, width))


def _temporaries(program: Program, parameters: int, width: int) -> float:
    """Bytes a chip of activations, gradients and gathered parameters: what lives within a step."""
    train, (data, fsdp, tensor) = program.config.train, program.mesh.shape.values()
    model, text, image = program.config.model, program.config.model.text, program.config.model.image
    pairs = train.batch_size / (data * fsdp) / train.microbatches  # a chip's, of one microbatch
    tokens = image.tokens if image.kind == "precomputed" else (image.size // image.patch) ** 2
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
    """Numbers that a block keeps of one pair for its backward pass under a remat policy (see `models.layers`), if its
    cross-attention reads so many positions; 0: it has none."""
    width, heads = model.width, model.heads
    kept = positions * width
    if remat in ("attention", "dots", "none"):
        kept += 4 * positions * width + (2 * (positions + read) * width if read else 0)
    if remat in ("dots", "none"):
        kept += positions * (mlp + width)
    if remat == "none":
        kept += positions * (8 * width + 2 * mlp) + 2 * 4 * heads * positions * (positions + read)
    return kept


def _traffic(program: Program, parameters: int, width: int) -> dict[str, Traffic]:
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
