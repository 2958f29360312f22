"""Heads: what an adaptation adds to a pretrained model, a pooler of one query and a linear classifier (paper §3.3)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis
from coca_jax.models.layers import named
from coca_jax.models.poolers import AttentionalPooler


class Head(nn.Module):
    """Logits, float32 [B, C], of tokens [B, P, N, D]: one query pools each of P parts, whose outputs are concatenated.

    P is 1 for an image's tokens, a clip's (of all frames together) and a decoder's outputs, 2 for pairs of images
    (NLVR2, paper §4.2.3). The classifier starts at zero, so that all classes are equally likely.
    """

    config: ModelConfig
    classes: int

    @nn.compact
    def __call__(self, tokens_BPND: Array, mask_BN: Array | None = None) -> Array:
        """`mask_BN`: True for the tokens that the query may attend to, the same in all parts; None: all."""
        batch, parts, count, width = tokens_BPND.shape
        mask = None
        if mask_BN is not None:
            mask = jnp.broadcast_to(mask_BN[:, None], (batch, parts, count)).reshape(-1, 1, 1, count)
        pooler = AttentionalPooler(self.config, 1, name="pooler")
        pooled_BD = pooler(tokens_BPND.reshape(-1, count, width), mask).reshape(batch, parts * width)
        kernel_axes = named(nn.initializers.zeros, Axis.WIDTH, Axis.CLASSES)
        kernel = self.param("kernel", kernel_axes, (parts * width, self.classes))
        bias = self.param("bias", named(nn.initializers.zeros, Axis.CLASSES), (self.classes,))
        logits_BC = jnp.dot(pooled_BD, kernel.astype(pooled_BD.dtype), preferred_element_type=jnp.float32)
        return logits_BC + bias[None]


class FramePositions(nn.Module):
    """Adds a learned vector for each frame to the tokens of clips [B, T, N, D]; it starts at zero."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens_BTND: Array) -> Array:
        shape = (tokens_BTND.shape[1], self.config.width)
        positions_TD = self.param("positions", named(nn.initializers.zeros, Axis.LENGTH, Axis.WIDTH), shape)
        return tokens_BTND + positions_TD.astype(tokens_BTND.dtype)[None, :, None]
