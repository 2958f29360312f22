"""Multi-head attention: scaled dot products with capped logits, softmax in float32."""

import math

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain
from coca_jax.models.layers import Dense, named

SAVED = "attention"  # names the arrays that remat = attention keeps for the backward pass


@struct.dataclass
class KeysValues:
    """Keys and values [B, S, H, K] of an attention layer."""

    key_BSHK: Array
    value_BSHK: Array


@struct.dataclass
class CachedKeysValues:
    """Keys [B, H, K, S] and values [B, H, S, K], in the layout that attention multiplies, so that no step transposes."""

    key_BHKS: Array
    value_BHSK: Array

    @classmethod
    def of(cls, kv: KeysValues) -> "CachedKeysValues":
        return cls(jnp.transpose(kv.key_BSHK, (0, 2, 3, 1)), jnp.swapaxes(kv.value_BSHK, 1, 2))

    def updated(self, kv: KeysValues, index: Array | int) -> "CachedKeysValues":
        """A copy with `kv` written at slots index, index + 1, …"""
        new = self.of(kv)

        def put(old: Array, part: Array, axis: int) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, part.astype(old.dtype), index, axis)

        return CachedKeysValues(put(self.key_BHKS, new.key_BHKS, 3), put(self.value_BHSK, new.value_BHSK, 2))


def attend(query_BLHK: Array, kv: KeysValues | CachedKeysValues, mask: Array | None, cap: float) -> Array:
    """Attention output [B, L, H, K] of scaled queries: softmax(cap(QKᵀ)) V, cap(x) = cap · tanh(x / cap).

    Args:
      mask: bool, rank 4, of sizes B or 1, 1, L or 1, S; each row needs a True.
      cap: bound on the absolute value of the logits (as in Gemma 2, arXiv 2408.00118, §2); 0: no cap.
    """
    if isinstance(kv, CachedKeysValues):
        key, value, key_axes, value_axes = kv.key_BHKS, kv.value_BHSK, "BHKS", "BHSK"
    else:
        key, value, key_axes, value_axes = kv.key_BSHK, kv.value_BSHK, "BSHK", "BSHK"
    chex.assert_rank([query_BLHK, key, value], 4)
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

    def keys_values(self, x_BSD: Array) -> KeysValues:
        def project(layer: Dense) -> Array:
            return checkpoint_name(self._constrain(layer(x_BSD)), SAVED)

        return KeysValues(project(self.key), project(self.value))

    def __call__(self, x_BLD: Array, kv: KeysValues | CachedKeysValues, mask: Array | None = None) -> Array:
        """The attention output, [B, L, D]; `mask` as for `attend`."""
        scale: float | Array = 1 / math.sqrt(self.head_dim)
        if self.per_dim_scale:  # softplus(0) = log 2: starts at 1/sqrt(K)
            scale = (scale * jax.nn.softplus(self.scale) / math.log(2))[None, None, None]
        query_BLHK = checkpoint_name(self._constrain(self.query(x_BLD)), SAVED)
        query_BLHK = (query_BLHK * scale).astype(query_BLHK.dtype)
        attended_BLHK = self._constrain(attend(query_BLHK, kv, mask, self.config.logit_cap))
        return checkpoint_name(self.out(attended_BLHK), SAVED)

    def _constrain(self, x: Array) -> Array:
        return constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_HEADS, Axis.LENGTH)
