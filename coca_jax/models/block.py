"""The transformer block, and a stack of blocks = scan(remat(block))."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain
from coca_jax.models.attention import SAVED, Attention, CachedKeysValues, KeysValues
from coca_jax.models.layers import Mlp, layer_norm


@struct.dataclass
class BlockCache:
    """A block's cache: keys and values of the text so far, and of the image tokens where the block attends to them."""

    text: CachedKeysValues
    image: CachedKeysValues | None = None


class Block(nn.Module):
    """Pre-LayerNorm transformer block: self-attention, cross-attention where `cross`, one FFN."""

    config: ModelConfig
    mlp: int
    activation: Callable
    cross: bool = False

    @nn.compact
    def __call__(
        self, x_BLD: Array, mask: Array | None, tokens_BND: Array | None, index: Array | int, cache: BlockCache | None
    ) -> tuple[Array, BlockCache | None]:
        """The output [B, L, D] and the updated cache (None without one), the pair that `nn.scan` expects."""
        head_dim = self.config.width // self.config.heads
        h = layer_norm("attention_norm")(x_BLD)
        attention = Attention(self.config, head_dim, name="attention")
        new = attention.keys_values(h)
        kv: KeysValues | CachedKeysValues = new
        if cache is not None:
            kv = cache.text.updated(new, index)
            cache = dataclasses.replace(cache, text=kv)
        x_BLD = self._constrain(x_BLD + attention(h, kv, mask))
        if self.cross:
            h = layer_norm("cross_norm")(x_BLD)
            attention = Attention(self.config, head_dim, name="cross_attention")
            if tokens_BND is None:  # later steps of generation: their keys and values are in the cache
                assert cache is not None and cache.image is not None
                kv = cache.image
            else:
                kv = new = attention.keys_values(tokens_BND)
                if cache is not None:
                    kv = CachedKeysValues.of(new)
                    cache = dataclasses.replace(cache, image=kv)
            x_BLD = self._constrain(x_BLD + attention(h, kv))
        h = layer_norm("mlp_norm")(x_BLD)
        x_BLD = x_BLD + Mlp(self.config, self.mlp, self.activation, transposed=cache is not None, name="mlp")(h)
        return self._constrain(x_BLD), cache

    def _constrain(self, x: Array) -> Array:
        x = x.astype(self.config.dtype)
        return constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_WIDTH)


# From most memory and least compute to the opposite; "none" rematerialises nothing. With an MLP of four widths a block
# keeps for each token, in widths: none 22 and the attention logits four times, dots 9, attention 5, full 1 (its input).
# Of the forward pass's products the backward pass then repeats: none; those inside attention; also the MLP's first; all.
_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(SAVED),
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
        x_BLD: Array,
        mask: Array | None = None,
        tokens_BND: Array | None = None,
        index: Array | int = 0,
        cache: tuple[BlockCache, ...] = (),
    ) -> tuple[Array, tuple[BlockCache, ...]]:
        """The output [B, L, D] and the updated cache, with which the parameters are in the form of `unstacked`."""
        x_BLD = x_BLD.astype(self.config.dtype)
        if cache:
            updated: tuple[Any, ...] = ()
            for layer, old in enumerate(cache):
                one = Block(self.config, self.mlp, self.activation, self.cross, name=f"blocks_{layer}")
                x_BLD, new = one(x_BLD, mask, tokens_BND, index, old)
                updated += (new,)
            return x_BLD, updated
        block: Any = Block
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
        return blocks(x_BLD, mask, tokens_BND, 0, None)[0], ()


def unstacked(params: dict[str, Any]) -> dict[str, Any]:
    """A stack's parameters with each block's apart (`blocks_0`, `blocks_1`, …), as generation reads them.

    A scan would copy each block's kernels and cache for every token. The MLP's kernels are transposed: on CPUs a single
    token's product with them is bound by memory, and contiguous rows are read a quarter faster.
    """
    blocks = params["blocks"]
    layers = jax.tree.leaves(blocks)[0].shape[0]
    mlp = {name: dense | {"kernel": jnp.swapaxes(dense["kernel"], 1, 2)} for name, dense in blocks["mlp"].items()}
    blocks = blocks | {"mlp": mlp}
    return {f"blocks_{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(layers)}
