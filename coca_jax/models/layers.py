"""Dense layer, LayerNorm, MLP, and parameters with logical axis names.

Letters in names: B batch, N image tokens, Q queries, L text length, S attended length, D width, H heads, K head dim,
F MLP, V vocabulary, E embedding.

Parameters are float32; computation runs in `dtype`, LayerNorm statistics and softmax in float32. Dense layers multiply
in 2-D ([B·L, D] x [D, F]): XLA on CPU is several times faster so, and on other backends the reshape is free.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain


def named(initializer: Callable, *axes: Axis) -> Callable:
    """`initializer` whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(initializer, axes)


class Dense(nn.Module):
    """A linear map from the last `len(in_axes)` axes of the input to `shape`, with bias."""

    config: ModelConfig
    shape: tuple[int, ...]  # the output's trailing shape, such as (H, K) or (F,)
    in_axes: tuple[Axis, ...]
    out_axes: tuple[Axis, ...]
    transposed: bool = False  # the kernel has its outputs first; see `block.unstacked`

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n_in, n_out, dtype = len(self.in_axes), len(self.shape), self.config.dtype
        leading, inputs = x.shape[:-n_in], x.shape[-n_in:]
        initializer = nn.initializers.variance_scaling(
            self.config.kernel_variance,
            "fan_avg",  # of the 2-D product
            "uniform",
            in_axis=tuple(range(n_in)),
            out_axis=tuple(range(n_in, n_in + n_out)),
        )
        axes, sizes = (*self.in_axes, *self.out_axes), (*inputs, *self.shape)
        if self.transposed:
            axes, sizes = (*self.out_axes, *self.in_axes), (*self.shape, *inputs)
        kernel = self.param("kernel", named(initializer, *axes), sizes)
        bias = self.param("bias", named(nn.initializers.zeros, *self.out_axes), self.shape)
        x_2d = x.reshape(-1, math.prod(inputs)).astype(dtype)
        if self.transposed:
            kernel_2d = kernel.reshape(-1, math.prod(inputs)).astype(dtype)
            y = jax.lax.dot_general(x_2d, kernel_2d, (((1,), (1,)), ((), ())))
        else:
            kernel_2d = kernel.reshape(math.prod(inputs), -1).astype(dtype)
            y = x_2d @ kernel_2d
        return (y + bias.reshape(1, -1).astype(dtype)).reshape(*leading, *self.shape)


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with float32 statistics and output (eps 1e-6, as in ViT and praxis)."""
    return nn.LayerNorm(
        name=name,
        dtype=jnp.float32,
        scale_init=named(nn.initializers.ones, Axis.WIDTH),
        bias_init=named(nn.initializers.zeros, Axis.WIDTH),
    )


class Mlp(nn.Module):
    """Two dense layers with an activation between them, [B, L, D] to [B, L, D] through width `mlp`."""

    config: ModelConfig
    mlp: int
    activation: Callable
    transposed: bool = False

    @nn.compact
    def __call__(self, x_BLD: Array) -> Array:
        h = Dense(self.config, (self.mlp,), (Axis.WIDTH,), (Axis.MLP,), self.transposed, name="up")(x_BLD)
        h = constrain(self.activation(h), Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_MLP)
        return Dense(self.config, (self.config.width,), (Axis.MLP,), (Axis.WIDTH,), self.transposed, name="down")(h)
