"""The optimiser: learning-rate schedules, optax chains, and the parameters that decay."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from coca_jax.config import OptimizerConfig
from coca_jax.objectives.base import Group

_DECAYED = ("kernel", "embedding")


def learning_rate(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up to `peak` over `warmup_steps`, or `warmup_fraction` of the steps, then the named schedule, zero at step
    `steps` (paper §4.1)."""
    warmup = min(config.warmup_steps or round(config.warmup_fraction * steps), steps)
    rest = max(steps - warmup, 1)
    after = {
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if not warmup:
        return after
    # From peak / warmup at step 0 rather than from 0: no step is spent without learning.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay pulls to zero: kernels and embeddings, not biases, norms or queries."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in _DECAYED, params)


def _adam_decay_rate(step: jax.Array, b2: float) -> jax.Array:
    """Adam's bias-corrected second-moment decay, (b2 - b2^t) / (1 - b2^t) at t = step + 1 (praxis' decay_method="adam")."""
    t = jnp.asarray(step, jnp.float32) + 1.0
    return b2 * (1.0 - b2 ** (t - 1.0)) / (1.0 - b2**t)


def matrix_axes(params: Any) -> Any:
    """For each kernel, which Muon orthogonalises, the axes of its matrix' rows and columns; None for all other parameters.

    A remaining axis is a scanned stack's: each layer is orthogonalised for itself, all of its heads together.
    """

    def axes(path: tuple[Any, ...], x: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        names = [entry.key for entry in path]
        if names[-1] != "kernel":
            return None
        rows_and_columns = range("blocks" in names, x.ndim)
        rows = len(rows_and_columns) - 1 if names[-2:-1] == ["out"] else 1  # [H, K, D], where all others are [D, …]
        return optax.contrib.MuonDimensionNumbers(tuple(rows_and_columns[:rows]), tuple(rows_and_columns[rows:]))

    return jax.tree_util.tree_map_with_path(axes, params)


def _scale(config: OptimizerConfig) -> optax.GradientTransformation:
    """From gradients to updates, before weight decay and learning rate."""
    match config.name:
        case "adamw":
            return optax.scale_by_adam(config.b1, config.b2)
        case "adafactor":
            # As in Google's public CoCa code: factored second moment with Adam's decay, update clipping at RMS 1, first
            # moment (bfloat16, where theirs is int8), no scaling by the parameter.
            return optax.chain(
                optax.scale_by_factored_rms(decay_rate=config.b2, decay_rate_fn=_adam_decay_rate),
                optax.clip_by_block_rms(1.0),
                optax.ema(config.b1, debias=False, accumulator_dtype=jnp.bfloat16),
            )
        case _:
            # Muon for the kernels, its updates as large as Adam's (RMS 0.2; Liu et al., arXiv 2502.16982); Adam for the
            # rest. The sign and the rate come at the end of `build`'s chain.
            return optax.contrib.muon(
                learning_rate=-1.0,
                beta=config.b1,
                consistent_rms=0.2,
                adam_b1=config.b1,
                adam_b2=config.b2,
                muon_weight_dimension_numbers=matrix_axes,
            )


def build(
    config: OptimizerConfig, steps: int, groups: Mapping[str, Group], labels: Any
) -> optax.GradientTransformation:
    """The optimiser's chain: clip, scale, then for each group its decoupled weight decay and its learning rate.

    `labels` is a tree like the trained parameters, with the name of each one's group.
    """
    last = {}
    for name, group in groups.items():
        decay = optax.add_decayed_weights(group.weight_decay, decay_mask)
        rate = learning_rate(config, group.peak_learning_rate, steps)
        last[name] = optax.chain(decay, optax.scale_by_learning_rate(rate))
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, _scale(config), optax.partition(last, labels))
