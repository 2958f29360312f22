"""Attention, MLP, block, and stack = scan(remat(block)).

Letters in names: B batch, N image tokens, Q queries, L text length, S attended length, D width, H heads, K head dim,
F MLP, V vocabulary, E embedding.

Parameters are float32 and carry logical axis names; computation runs in `dtype`, LayerNorm statistics and softmax in
float32. Dense layers multiply in 2-D ([B·L, D] x [D, F]): XLA on CPU is several times faster so, and on other backends
the reshape is free.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain

_KEPT = "attention"  # names what remat = attention keeps for the backward pass


def named(initializer: Callable, *axes: Axis) -> Callable:
    """`initializer` whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(initializer, axes)


class Dense(nn.Module):
    """A linear map from the last `len(in_axes)` axes of the input to `shape`, with bias.

    Attributes:
      shape: the output's trailing shape, such as (H, K) or (F,).
      in_axes, out_axes: logical names of the kernel's input and output axes.
      transposed: the kernel has its outputs first; see `unstacked`.
    """

    config: ModelConfig
    shape: tuple[int, ...]
    in_axes: tuple[Axis, ...]
    out_axes: tuple[Axis, ...]
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[x.ndim - len(self.in_axes) :]
        leading = x.shape[: x.ndim - len(self.in_axes)]
        dtype = jnp.dtype(self.config.dtype)
        n_in, n_out = len(inputs), len(self.shape)
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
        return (y + bias.reshape(-1).astype(dtype)).reshape(*leading, *self.shape)


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with float32 statistics and output (eps 1e-6, as the ViT's and praxis')."""
    return nn.LayerNorm(
        name=name,
        dtype=jnp.float32,
        scale_init=named(nn.initializers.ones, Axis.WIDTH),
        bias_init=named(nn.initializers.zeros, Axis.WIDTH),
    )


@struct.dataclass
class KeysValues:
    """Keys and values [B, S, H, K] of an attention layer."""

    key_BSHK: jax.Array
    value_BSHK: jax.Array


@struct.dataclass
class CachedKeysValues:
    """Keys [B, H, K, S] and values [B, H, S, K]: as attention multiplies them, so that no token transposes them."""

    key_BHKS: jax.Array
    value_BHSK: jax.Array

    @classmethod
    def of(cls, kv: KeysValues) -> "CachedKeysValues":
        return cls(jnp.transpose(kv.key_BSHK, (0, 2, 3, 1)), jnp.swapaxes(kv.value_BSHK, 1, 2))

    def updated(self, kv: KeysValues, index: jax.Array) -> "CachedKeysValues":
        """With `kv` written at slots index, index + 1, …"""
        new = self.of(kv)

        def put(old, part, axis):
            return jax.lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), index, axis)

        return CachedKeysValues(put(self.key_BHKS, new.key_BHKS, 3), put(self.value_BHSK, new.value_BHSK, 2))


def attend(query_BLHK: jax.Array, kv: KeysValues | CachedKeysValues, mask: jax.Array | None, cap: float) -> jax.Array:
    """Scaled queries to attention output [B, L, H, K]; logits capped at ±cap, softmax in float32.

    Args:
      mask: bool, broadcastable to [B, 1, L, S]; False: not attended to. Every row needs at least one True.
    """
    if isinstance(kv, CachedKeysValues):
        key, value, key_axes, value_axes = kv.key_BHKS, kv.value_BHSK, "BHKS", "BHSK"
    else:
        key, value, key_axes, value_axes = kv.key_BSHK, kv.value_BSHK, "BSHK", "BSHK"
    logits_BHLS = jnp.einsum(f"BLHK,{key_axes}->BHLS", query_BLHK, key, preferred_element_type=jnp.float32)
    if cap:
        logits_BHLS = cap * jnp.tanh(logits_BHLS / cap)
    if mask is not None:
        logits_BHLS = jnp.where(mask, logits_BHLS, jnp.finfo(jnp.float32).min)
    weights_BHLS = jax.nn.softmax(logits_BHLS, axis=-1).astype(value.dtype)
    return jnp.einsum(f"BHLS,{value_axes}->BLHK", weights_BHLS, value)


class Attention(nn.Module):
    """Multi-head attention whose keys and values are projected by a call of their own, so that they can be cached."""

    config: ModelConfig
    head_dim: int
    per_dim_scale: bool = False  # a learned scale for each query dimension instead of 1/sqrt(K) (praxis' PerDimScale)

    def setup(self) -> None:
        inner = (self.config, (self.config.heads, self.head_dim), (Axis.WIDTH,), (Axis.HEADS, Axis.HEAD_DIM))
        self.query, self.key, self.value = Dense(*inner), Dense(*inner), Dense(*inner)
        self.out = Dense(self.config, (self.config.width,), (Axis.HEADS, Axis.HEAD_DIM), (Axis.WIDTH,))
        if self.per_dim_scale:
            self.scale = self.param("scale", named(nn.initializers.zeros, Axis.HEAD_DIM), (self.head_dim,))

    def keys_values(self, x_BSD: jax.Array) -> KeysValues:
        def keep(x):
            return checkpoint_name(self._constrain(x), _KEPT)

        return KeysValues(keep(self.key(x_BSD)), keep(self.value(x_BSD)))

    def __call__(self, x_BLD: jax.Array, kv: KeysValues | CachedKeysValues, mask: jax.Array | None = None) -> jax.Array:
        scale = 1 / math.sqrt(self.head_dim)
        if self.per_dim_scale:
            scale = scale * jax.nn.softplus(self.scale) / math.log(2)  # softplus(0) = log 2: starts at 1/sqrt(K)
        query_BLHK = checkpoint_name(self._constrain(self.query(x_BLD)), _KEPT)
        query_BLHK = (query_BLHK * scale).astype(query_BLHK.dtype)
        attended_BLHK = self._constrain(attend(query_BLHK, kv, mask, self.config.logit_cap))
        return checkpoint_name(self.out(attended_BLHK), _KEPT)

    def _constrain(self, x: jax.Array) -> jax.Array:
        return constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_HEADS, Axis.LENGTH)


class Mlp(nn.Module):
    config: ModelConfig
    mlp: int
    activation: Callable
    transposed: bool = False

    @nn.compact
    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        h = Dense(self.config, (self.mlp,), (Axis.WIDTH,), (Axis.MLP,), self.transposed, name="up")(x_BLD)
        h = constrain(self.activation(h), Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_MLP)
        return Dense(self.config, (self.config.width,), (Axis.MLP,), (Axis.WIDTH,), self.transposed, name="down")(h)


@struct.dataclass
class BlockCache:
    """What a block keeps while text is generated: its own keys and values so far, and those of the image tokens."""

    own: CachedKeysValues
    cross: CachedKeysValues | None = None


class Block(nn.Module):
    """Pre-LayerNorm transformer block: self-attention, cross-attention where `cross`, one FFN."""

    config: ModelConfig
    mlp: int
    activation: Callable
    cross: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        mask: jax.Array | None,
        tokens_BND: jax.Array | None,
        index: jax.Array | None,
        cache: BlockCache | None,
    ) -> tuple[jax.Array, BlockCache | None]:
        """Returns the block's output [B, L, D] and its updated cache (None where none was given)."""
        head_dim = self.config.width // self.config.heads
        h = layer_norm("attention_norm")(x_BLD)
        attention = Attention(self.config, head_dim, name="attention")
        kv = attention.keys_values(h)
        if cache is not None:
            kv = cache.own.updated(kv, index)
            cache = cache.replace(own=kv)
        x_BLD = self._constrain(x_BLD + attention(h, kv, mask))
        if self.cross:
            h = layer_norm("cross_norm")(x_BLD)
            attention = Attention(self.config, head_dim, name="cross_attention")
            # Given image tokens: project them. Without: a later step of generation, which finds them in its cache.
            kv = attention.keys_values(tokens_BND) if tokens_BND is not None else cache.cross
            if cache is not None:
                kv = kv if tokens_BND is None else CachedKeysValues.of(kv)
                cache = cache.replace(cross=kv)
            x_BLD = self._constrain(x_BLD + attention(h, kv))
        h = layer_norm("mlp_norm")(x_BLD)
        x_BLD = x_BLD + Mlp(self.config, self.mlp, self.activation, transposed=cache is not None, name="mlp")(h)
        return self._constrain(x_BLD), cache

    def _constrain(self, x: jax.Array) -> jax.Array:
        x = x.astype(self.config.dtype)
        return constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_WIDTH)


# From most memory and least compute to the contrary, "none" being the absence of one. With an MLP of four widths a block
# keeps for each token, in widths: none 22 and the attention logits four times, dots 9, attention 5, full 1 (its input).
# Of the forward pass's products the backward pass then repeats: none; those inside attention; also the MLP's first; all.
_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(_KEPT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Stack(nn.Module):
    """`layers` blocks, scanned over parameters with a leading layer axis."""

    config: ModelConfig
    layers: int
    mlp: int
    activation: Callable
    cross: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLD: jax.Array,
        mask: jax.Array | None = None,
        tokens_BND: jax.Array | None = None,
        index: jax.Array | None = None,
        cache: tuple[BlockCache, ...] | None = None,
    ) -> tuple[jax.Array, tuple[BlockCache, ...] | None]:
        """The last block's output [B, L, D], and the updated cache, one entry a block; None where none was given.

        With a cache the parameters are those that `unstacked` gives.
        """
        if cache is not None:
            x_BLD, parts = x_BLD.astype(self.config.dtype), []
            for layer, part in enumerate(cache):
                block = Block(self.config, self.mlp, self.activation, self.cross, name=f"blocks_{layer}")
                x_BLD, part = block(x_BLD, mask, tokens_BND, index, part)
                parts.append(part)
            return x_BLD, tuple(parts)
        block = Block
        if self.config.remat != "none":
            # Inside a scan, XLA cannot merge the recomputation with the forward pass: no barrier against it is needed.
            block = nn.remat(Block, policy=_REMAT_POLICIES[self.config.remat], prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast, 0),
            length=self.layers,
            metadata_params={nn.PARTITION_NAME: Axis.LAYERS},
        )
        blocks = scanned(self.config, self.mlp, self.activation, self.cross, name="blocks")
        return blocks(x_BLD.astype(self.config.dtype), mask, tokens_BND, None, None)


def unstacked(params: dict[str, Any]) -> dict[str, Any]:
    """A stack's parameters with those of each block apart (`blocks_0`, `blocks_1`, …), as generation reads them.

    A scan would copy each block's kernels and cache out of the stack and the cache back into it, for every token. The
    MLP's kernels are transposed: on CPUs a single token's product with them is bound by memory, and contiguous rows are
    read a quarter faster.
    """
    layers = jax.tree.leaves(params["blocks"])[0].shape[0]
    transposed = {
        name: dense | {"kernel": jnp.swapaxes(dense["kernel"], 1, 2)} for name, dense in params["blocks"]["mlp"].items()
    }
    blocks = params["blocks"] | {"mlp": transposed}
    return {f"blocks_{i}": jax.tree.map(lambda x: x[i], blocks) for i in range(layers)}
