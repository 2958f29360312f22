"""The decoupled text decoder (paper §3.2): a unimodal half, whose CLS is the text embedding, and a multimodal half."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array

from coca_jax.config import ModelConfig
from coca_jax.distributed.sharding import Axis, constrain
from coca_jax.models.attention import CachedKeysValues
from coca_jax.models.block import BlockCache, Stack
from coca_jax.models.layers import layer_norm, named


def sinusoidal_positions(length: int, width: int) -> np.ndarray:
    """Fixed position embeddings [L, D]: sines, then cosines, of wavelengths 2π to 2π·10,000 (Vaswani et al., §3.5)."""
    half = width // 2
    frequencies = np.exp(-np.log(1e4) * np.arange(half) / max(half - 1, 1))
    angles = np.arange(length)[:, None] * frequencies[None]
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, width - table.shape[1]))).astype(np.float32)


def causal_mask(valid_BL: Array) -> Array:
    """[B, 1, L, L]: position t attends to the valid positions up to t, and to itself (so that no row is empty)."""
    length = valid_BL.shape[1]
    earlier, itself = jnp.tril(jnp.ones((1, 1, length, length), bool)), jnp.eye(length, dtype=bool)[None, None]
    return (earlier & valid_BL[:, None, None, :]) | itself


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


@struct.dataclass
class DecoderOutput:
    """The output of a decoder half, or of both."""

    hidden_BLD: Array  # the unimodal half's is not normalised (Google's public code)
    embedding_BD: Array | None = None  # of the unimodal half with a contrastive branch: LayerNorm of the CLS output
    cache: Any = None  # updated keys and values, if they were given


class UnimodalDecoder(nn.Module):
    """Token embedding scaled by √D, sinusoidal positions, CLS appended at the end, causal self-attention layers."""

    config: ModelConfig
    cls: bool

    def setup(self) -> None:
        config, text = self.config, self.config.text
        initializer = nn.initializers.normal(config.width**-0.5)
        embedding = named(initializer, Axis.VOCABULARY, Axis.WIDTH)
        self.embedding = self.param("embedding", embedding, (text.vocabulary_size, config.width))
        if self.cls:
            self.cls_embedding = self.param("cls_embedding", named(initializer, Axis.WIDTH), (config.width,))
            self.norm = layer_norm()
        self.layers = Stack(config, text.unimodal_layers, text.mlp, jax.nn.relu)

    def __call__(self, ids_BL: Array, valid_BL: Array) -> DecoderOutput:
        chex.assert_rank(ids_BL, 2)
        chex.assert_equal_shape([ids_BL, valid_BL])
        length = ids_BL.shape[1]
        x = self._embed(ids_BL, jnp.asarray(sinusoidal_positions(length, self.config.width))[None])
        if self.cls:
            cls = self._scaled(self.cls_embedding)  # has no position: it is always the last
            x = jnp.concatenate([x, jnp.broadcast_to(cls, (x.shape[0], 1, x.shape[2]))], axis=1)
            valid_BL = jnp.pad(valid_BL, ((0, 0), (0, 1)), constant_values=True)
        x = constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_WIDTH)
        x, _ = self.layers(x, causal_mask(valid_BL))
        # CLS is last and attention is causal: the text's tokens never see it.
        return DecoderOutput(x[:, :length], self.norm(x[:, -1]) if self.cls else None)

    def extend(
        self, ids_BL: Array, positions_BL: Array, mask: Array, index: Array | int, cache: tuple[BlockCache, ...]
    ) -> DecoderOutput:
        """The output for new tokens, given the cache of earlier ones (no CLS); see `Coca.extend`."""
        table = jnp.asarray(sinusoidal_positions(self.config.text.length, self.config.width))
        x = self._embed(ids_BL, table[positions_BL])
        x, cache = self.layers(x, mask, None, index, cache)
        return DecoderOutput(x, cache=cache)

    def _embed(self, ids_BL: Array, positions_BLD: Array) -> Array:
        # The table's width lies on the mesh axis that also carries the batch. Each device looks up its part of the
        # width for the rows of all its neighbours there, and one all-to-all, forth and back, makes rows of it: cheaper
        # than gathering the table. Without this, XLA replicates the activations on all devices, with a warning.
        ids_BL = constrain(ids_BL, Axis.LOOKUP_BATCH, Axis.LENGTH)
        x = self._scaled(jnp.take(self.embedding, ids_BL, axis=0))
        x = constrain(x, Axis.LOOKUP_BATCH, Axis.LENGTH, Axis.WIDTH)
        x = constrain(x, Axis.BATCH, Axis.LENGTH, Axis.ACTIVATION_WIDTH)
        return x + positions_BLD.astype(self.config.dtype)

    def _scaled(self, x: Array) -> Array:
        return x.astype(self.config.dtype) * self.config.width**0.5


class MultimodalDecoder(nn.Module):
    """Causal self-attention, cross-attention to the pooled image tokens, one FFN; then LayerNorm."""

    config: ModelConfig

    def setup(self) -> None:
        text = self.config.text
        self.layers = Stack(self.config, text.multimodal_layers, text.mlp, jax.nn.relu, cross=True)
        self.norm = layer_norm()

    def __call__(self, text_BLD: Array, valid_BL: Array, tokens_BQD: Array | None) -> DecoderOutput:
        chex.assert_equal_shape_prefix([text_BLD, valid_BL], 2)
        chex.assert_shape(tokens_BQD, (len(text_BLD), None, self.config.width))
        x, _ = self.layers(text_BLD, causal_mask(valid_BL), tokens_BQD)
        return DecoderOutput(self.norm(x).astype(self.config.dtype))

    def extend(
        self, text_BLD: Array, mask: Array, index: Array | int, cache: tuple[BlockCache, ...], tokens_BQD: Array | None
    ) -> DecoderOutput:
        """The output for new tokens; image tokens are given at the first call only, then cached; see `Coca.extend`."""
        x, cache = self.layers(text_BLD, mask, tokens_BQD, index, cache)
        return DecoderOutput(self.norm(x).astype(self.config.dtype), cache=cache)


@struct.dataclass
class SoftmaxWeights:
    """The output projection: kernel [D, V] and bias [V]. Losses take these instead of logits, to work in chunks."""

    kernel_DV: Array
    bias_V: Array

    def logits(self, hidden_BLD: Array) -> Array:
        """Logits, float32 [B, L, V]; multiplied in the hidden state's dtype, accumulated in float32."""
        kernel = self.kernel_DV.astype(hidden_BLD.dtype)
        flat = jnp.dot(hidden_BLD.reshape(-1, kernel.shape[0]), kernel, preferred_element_type=jnp.float32)
        return (flat + self.bias_V[None]).reshape(*hidden_BLD.shape[:-1], kernel.shape[1])


class Softmax(nn.Module):
    """Holds the output projection: with a bias, untied from the embedding unless `tied_softmax`."""

    config: ModelConfig

    @nn.compact
    def __call__(self, embedding_VD: Array) -> SoftmaxWeights:
        width, size = self.config.width, self.config.text.vocabulary_size
        bias = self.param("bias", named(nn.initializers.zeros, Axis.VOCABULARY), (size,))
        if self.config.text.tied_softmax:
            return SoftmaxWeights(embedding_VD.T, bias)
        initializer = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        kernel = self.param("kernel", named(initializer, Axis.WIDTH, Axis.VOCABULARY), (width, size))
        return SoftmaxWeights(kernel, bias)
