"""Peak memory of the losses, and of their gradients, against their dense forms at growing batch; and a plot of it.

    python benchmarks/losses_memory.py --svg=benchmarks/losses_memory.svg

Nothing runs: the figures are the compiler's (temporary bytes of the compiled gradient), for one CPU device.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from absl import flags

from coca_jax.cli import app as command_line
from coca_jax.objectives.losses import captioning as captioning_losses
from coca_jax.objectives.losses import contrastive as contrastive_losses

_SVG = flags.DEFINE_string("svg", None, "Where to write the plot.")
_EMBEDDING = flags.DEFINE_integer("width", 768, "Width of the embeddings and of the hidden states.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 64_000, "Size of the vocabulary.")
_LENGTH = flags.DEFINE_integer("length", 64, "Text positions.")
_BATCHES = flags.DEFINE_list("batches", [str(2**n) for n in range(10, 17)], "Batches for the contrastive loss.")
_CAPTIONS = flags.DEFINE_list("captions", [str(2**n) for n in range(2, 9)], "Batches for the captioning loss.")

Curve = list[tuple[int, int]]  # (batch, bytes)


def dense_contrastive(image_NE: jax.Array, text_NE: jax.Array, temperature: jax.Array) -> jax.Array:
    """The same loss, from the whole matrix of similarities."""
    logits_NN = jnp.dot(image_NE, text_NE.T, precision="highest") / temperature
    own = jnp.diagonal(logits_NN)
    both = jax.nn.logsumexp(logits_NN, axis=1) + jax.nn.logsumexp(logits_NN, axis=0)
    return jnp.mean(both - 2 * own) / 2


def dense_captioning(
    hidden_BLD: jax.Array, kernel_DV: jax.Array, bias_V: jax.Array, labels_BL: jax.Array, mask_BL: jax.Array
) -> jax.Array:
    """The same loss, from all logits [B, L, V]."""
    logits = jnp.dot(hidden_BLD, kernel_DV.astype(hidden_BLD.dtype), preferred_element_type=jnp.float32) + bias_V
    own = jnp.take_along_axis(logits, labels_BL[..., None], axis=-1)[..., 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - own) * mask_BL) / jnp.maximum(jnp.sum(mask_BL), 1)


def temporary_bytes(loss: Callable[..., jax.Array], count: int, *arguments: jax.ShapeDtypeStruct) -> int:
    """What the gradient with respect to the first `count` arguments needs beside its arguments and its result."""
    gradient = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(count))))
    return gradient.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def contrastive(batch: int) -> tuple[int, int]:
    """(ours, dense) in bytes."""
    embeddings = jax.ShapeDtypeStruct((batch, _EMBEDDING.value), jnp.float32)
    arguments = (embeddings, embeddings, jax.ShapeDtypeStruct((), jnp.float32))

    def ours(*inputs):
        return contrastive_losses.contrastive_loss(*inputs)[0]

    return temporary_bytes(ours, 3, *arguments), temporary_bytes(dense_contrastive, 3, *arguments)


def captioning(batch: int) -> tuple[int, int]:
    """(ours, dense) in bytes."""
    width, length, vocabulary = _EMBEDDING.value, _LENGTH.value, _VOCABULARY.value
    of = jax.ShapeDtypeStruct
    arguments = (
        of((batch, length, width), jnp.float32),
        of((width, vocabulary), jnp.float32),
        of((vocabulary,), jnp.float32),
        of((batch, length), jnp.int32),
        of((batch, length), jnp.bool_),
    )

    def ours(*inputs):
        return jnp.sum(captioning_losses.captioning_sums(*inputs)[0]) / jnp.sum(inputs[-1])

    return temporary_bytes(ours, 3, *arguments), temporary_bytes(dense_captioning, 3, *arguments)


def curves(name: str, measure: Callable[[int], tuple[int, int]], batches: Sequence[str]) -> dict[str, Curve]:
    """Measures and prints one loss in both forms."""
    print(f"{name}\n  {'batch':>7} {'coca_jax':>12} {'dense':>12}")
    found: dict[str, Curve] = {f"{name}, coca_jax": [], f"{name}, dense": []}
    for batch in map(int, batches):
        sizes = measure(batch)
        print(f"  {batch:>7,} " + " ".join(f"{size / 2**20:>8,.1f} MiB" for size in sizes), flush=True)
        for curve, size in zip(found.values(), sizes, strict=True):
            curve.append((batch, size))
    return found


def plot(panels: Sequence[dict[str, Curve]]) -> str:
    """A standalone SVG of panels side by side, both axes logarithmic."""
    width, height, margin = 420, 300, 56
    parts = [_panel(curves, width, height, margin, left=index * width) for index, curves in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#333"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(curves: dict[str, Curve], width: int, height: int, margin: int, left: int) -> str:
    batches = [batch for curve in curves.values() for batch, _ in curve]
    sizes = [max(size, 1) for curve in curves.values() for _, size in curve]

    def span(values):
        return (math.log2(min(values)), max(math.log2(max(values)), math.log2(min(values)) + 1))

    (low_x, high_x), (low_y, high_y) = span(batches), span(sizes)

    def x(batch):
        return left + margin + (math.log2(batch) - low_x) / (high_x - low_x) * (width - margin - 16)

    def y(size):
        return height - 40 - (math.log2(max(size, 1)) - low_y) / (high_y - low_y) * (height - 80)

    drawn = []
    for index, (name, curve) in enumerate(curves.items()):
        colour = ("#0b6e99", "#c4501b")[index]
        points = " ".join(f"{x(batch):.1f},{y(size):.1f}" for batch, size in curve)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{left + margin + 6}" y="{20 + 14 * index}" fill="{colour}">{name}</text>')
    for batch in sorted(set(batches)):
        drawn.append(f'<text x="{x(batch):.1f}" y="{height - 22}" text-anchor="middle">{batch:,}</text>')
    for power in range(math.ceil(low_y / 2) * 2, math.floor(high_y) + 1, 2):
        label = f"{2 ** (power - 20):g} MiB" if power < 30 else f"{2 ** (power - 30):g} GiB"
        drawn.append(f'<path d="M{left + margin} {y(2**power):.1f}H{left + width - 16}" stroke="#ddd"/>')
        drawn.append(f'<text x="{left + margin - 4}" y="{y(2**power) + 4:.1f}" text-anchor="end">{label}</text>')
    drawn.append(f'<text x="{left + width / 2}" y="{height - 6}" text-anchor="middle">pairs</text>')
    return "".join(drawn)


def main(arguments: list[str]) -> None:
    command_line.reject_positional_arguments(arguments)
    panels = [
        curves("contrastive loss", contrastive, _BATCHES.value),
        curves("captioning loss", captioning, _CAPTIONS.value),
    ]
    if _SVG.value:
        with open(_SVG.value, "w", encoding="utf-8") as file:
            file.write(plot(panels))


if __name__ == "__main__":
    command_line.run(main)
