"""Keys and values of attention, as a layer computes them and as generation caches them."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain


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


@struct.dataclass
class BlockCache:
    """A block's cache: keys and values of the text so far, and of the image tokens where the block attends to them."""

    text: CachedKeysValues
    image: CachedKeysValues | None = None


@struct.dataclass
class DecoderCache:
    """The caches of both decoder halves, one entry a layer."""

    unimodal: tuple[BlockCache, ...]
    multimodal: tuple[BlockCache, ...]


def empty_cache(config: ModelConfig, batch: int, slots: int) -> DecoderCache:
    """A cache for `slots` tokens an image; the image tokens' keys and values are added by the first `Coca.extend`."""
    head_dim = config.width // config.heads

    def zeros(*shape: int) -> Array:
        x = jnp.zeros((batch, config.heads, *shape), config.dtype)
        return constrain(x, Axis.BATCH, Axis.ACTIVATION_HEADS, Axis.LENGTH, Axis.LENGTH)

    def block() -> BlockCache:
        return BlockCache(CachedKeysValues(zeros(head_dim, slots), zeros(slots, head_dim)))

    halves = (config.text.unimodal_layers, config.text.multimodal_layers)
    return DecoderCache(*(tuple(block() for _ in range(layers)) for layers in halves))
