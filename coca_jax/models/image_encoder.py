"""Image encoders: images [B, S, S, 3] to tokens [B, N, D]. A ViT, and a small ConvNet behind the same signature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from coca_jax.config import ImageEncoderConfig, ModelConfig
from coca_jax.distributed.sharding import Axis, constrain
from coca_jax.models.block import Stack
from coca_jax.models.layers import Dense, Mlp, layer_norm, named


def exact_gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)  # the paper's public code uses erf; jax's default is tanh


def token_count(config: ImageEncoderConfig) -> int:
    """N, the number of tokens of an image."""
    return config.tokens if config.kind == "precomputed" else (config.size // config.patch) ** 2


def resize_positions(positions_ND: Array, tokens: int) -> Array:
    """Position embeddings [tokens, D] from those of another square grid: the paper's step from 288 to 576 pixels.

    Bicubic (Keys' kernel, a = -1/2) between the centres of the patches; towards fewer patches the kernel is widened
    against aliasing. The paper does not state the method; Google's public code is bilinear. A ValueError if either number
    of tokens is not a square.
    """
    count, width = positions_ND.shape
    old, new = math.isqrt(count), math.isqrt(tokens)
    if old * old != count or new * new != tokens:
        raise ValueError(f"positions of {count} tokens cannot be resized to {tokens}: both must be squares")
    grid = positions_ND.reshape(old, old, width)
    return jax.image.resize(grid, (new, new, width), "cubic", antialias=True).reshape(tokens, width)


def to_float(images: Array, dtype: str) -> Array:
    """Pixels in [0, 1]: uint8 is divided by 255, floating point is only cast."""
    return images.astype(dtype) / 255 if images.dtype == jnp.uint8 else images.astype(dtype)


class ConvStem(nn.Module):
    """log2(patch) convolutions, 3x3 with stride 2, then a linear map: [B, S, S, 3] to [B, S/patch, S/patch, D].

    Xiao et al., arXiv 2106.14881: on little data it learns much faster than one linear patch projection. Without
    normalisation between the layers, which on CPU costs as much as all the rest of the stem.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for step, features in enumerate(self.config.stem_widths):
            layer = Dense(self.config, (features,), (Axis.CHANNELS_IN,), (Axis.WIDTH,), name=f"conv_{step}")
            x = jax.nn.relu(layer(_windows(x)))
        return Dense(self.config, (self.config.width,), (Axis.CHANNELS_IN,), (Axis.WIDTH,), name="out")(x)


def _windows(x: Array) -> Array:
    """3x3 neighbourhoods at stride 2, [B, S, S, C] to [B, S/2, S/2, 9·C]: a convolution is then one matrix product, whose
    gradient takes XLA on CPU a third of the time."""
    side = x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return jnp.concatenate([x[:, i : i + side : 2, j : j + side : 2] for i in range(3) for j in range(3)], axis=-1)


class PatchStem(nn.Module):
    """One linear projection of each patch: [B, S, S, 3] to [B, S/patch, S/patch, D]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        patch, side = self.config.image.patch, self.config.image.size // self.config.image.patch
        x = x.reshape(x.shape[0], side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(x.shape[0], side, side, patch * patch * 3)
        return Dense(self.config, (self.config.width,), (Axis.CHANNELS_IN,), (Axis.WIDTH,), name="projection")(x)


class VisionTransformer(nn.Module):
    """ViT without class token: stem, learned positions, pre-LayerNorm blocks, final LayerNorm (paper §3.2)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Array) -> Array:
        config, image = self.config, self.config.image
        stem = ConvStem if image.stem == "conv" else PatchStem
        x = stem(config, name="stem")(to_float(images, config.dtype))
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], config.width)
        initializer = named(nn.initializers.normal(image.position_scale), Axis.LENGTH, Axis.WIDTH)
        positions = self.param("positions", initializer, (x.shape[1], config.width))
        x = constrain(x + positions.astype(x.dtype)[None], Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_WIDTH)
        x, _ = Stack(config, image.layers, image.mlp, exact_gelu, name="layers")(x)
        return layer_norm("norm")(x).astype(config.dtype)


_KERNEL = 7  # pixels a side of a depthwise kernel
_LARGEST_MATRIX_GRID = 8  # a matrix of all positions grows with the square of their number


class DepthwiseConv(nn.Module):
    """A 7x7 convolution of each channel by itself, with zeros around the image: [B, S, S, D] to the same."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        grid, width = x.shape[1], x.shape[3]
        initializer = named(nn.initializers.lecun_normal(), Axis.KERNEL, Axis.KERNEL, Axis.CHANNELS_IN, Axis.WIDTH)
        kernel = self.param("kernel", initializer, (_KERNEL, _KERNEL, 1, width)).astype(x.dtype)
        bias = self.param("bias", named(nn.initializers.zeros, Axis.WIDTH), (width,)).astype(x.dtype)[None, None, None]
        if grid > _LARGEST_MATRIX_GRID:
            layout = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, layout, width) + bias
        # XLA on CPU has no fast gradient of a grouped convolution: see docs/decisions.md.
        matrices_NMD = _position_matrices(kernel[:, :, 0], grid)
        return jnp.einsum("bnd,nmd->bmd", x.reshape(-1, grid * grid, width), matrices_NMD).reshape(x.shape) + bias


def _position_matrices(kernel: Array, grid: int) -> Array:
    """The depthwise kernel [K, K, D] as a matrix of each channel, [N, N, D], from the N = grid² positions to themselves."""
    # Along one side: source - target + K // 2, the index into the kernel, for each pair of places.
    offsets = np.subtract.outer(np.arange(grid), np.arange(grid)).ravel() + kernel.shape[0] // 2
    inside = (offsets >= 0) & (offsets < kernel.shape[0])
    entries = jnp.where(np.outer(inside, inside)[..., None], kernel[np.ix_(offsets, offsets)], 0)
    entries = entries.reshape(grid, grid, grid, grid, -1).swapaxes(1, 2)
    return entries.reshape(grid * grid, grid * grid, -1)


class ConvNet(nn.Module):
    """A small ConvNeXt (arXiv 2201.03545): conv stem, then blocks of 7x7 depthwise convolution, LayerNorm and MLP."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Array) -> Array:
        config, image = self.config, self.config.image
        x = ConvStem(config, name="stem")(to_float(images, config.dtype))
        for layer in range(image.layers):
            h = DepthwiseConv(name=f"depthwise_{layer}")(x)
            h = layer_norm(f"norm_{layer}")(h).reshape(x.shape[0], -1, config.width)
            x = x + Mlp(config, image.mlp, exact_gelu, name=f"mlp_{layer}")(h).reshape(x.shape)
        return layer_norm("norm")(x.reshape(x.shape[0], x.shape[1] * x.shape[2], config.width)).astype(config.dtype)


def image_encoder(config: ModelConfig, name: str) -> nn.Module:
    """The encoder that `config.image.kind` names (not for "precomputed", which has none)."""
    return {"vit": VisionTransformer, "convnet": ConvNet}[config.image.kind](config, name=name)
