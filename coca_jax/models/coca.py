"""CoCa: image encoder, poolers, unimodal and multimodal decoder; both losses' inputs from one forward pass.

The rest of the project sees `Coca` (a linen module used through `apply`), `init`, `abstract_parameters` and plain dicts.
Text is given as token ids [B, L] (BOS, tokens, EOS, pads) with `valid_BL`, True where a token is not a pad: the model
knows no special ids.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.sharding import PartitionSpec

from coca_jax.config import Config, ModelConfig
from coca_jax.models.image_encoder import image_encoder, token_count
from coca_jax.models.layers import BlockCache, KeysValues
from coca_jax.models.pooler import PooledImage, Poolers
from coca_jax.models.text_decoder import MultimodalDecoder, Softmax, SoftmaxWeights, UnimodalDecoder, UnimodalText
from coca_jax.sharding import Axis

_LOWEST_TEMPERATURE = 0.01  # CLIP's bound: logits are scaled by at most 100


@struct.dataclass
class CocaOutput:
    """One forward pass. A branch that is switched off leaves None.

    Attributes:
      image_embedding_BE, text_embedding_BE: L2-normalised, float32.
      temperature: scalar, float32, at least 0.01.
      hidden_BLD: the multimodal decoder's output; `softmax.logits(hidden_BLD)[:, t]` predicts token t + 1.
      unimodal_hidden_BLD: the unimodal decoder's, likewise (for the unimodal language-model loss).
      softmax: the output projection.
    """

    image_embedding_BE: jax.Array | None = None
    text_embedding_BE: jax.Array | None = None
    temperature: jax.Array | None = None
    hidden_BLD: jax.Array | None = None
    unimodal_hidden_BLD: jax.Array | None = None
    softmax: SoftmaxWeights | None = None


@struct.dataclass
class DecoderCache:
    """Keys and values of both decoder halves, each with a leading layer axis."""

    unimodal: BlockCache
    multimodal: BlockCache


def _normalize(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class Coca(nn.Module):
    """The model; a branch whose loss has weight 0 has neither parameters nor compute.

    Attributes:
      contrastive: image and text embeddings (CLS, contrastive pooler, temperature).
      captioning: multimodal decoder and softmax.
      unimodal_language_model: the softmax reads the unimodal decoder too.
    """

    config: ModelConfig
    contrastive: bool = True
    captioning: bool = True
    unimodal_language_model: bool = False
    initial_temperature: float = 0.07

    def setup(self) -> None:
        config = self.config
        if config.image.kind != "precomputed":
            self.image_encoder = image_encoder(config, "image_encoder")
        self.poolers = Poolers(config, self.contrastive, self.captioning)
        self.unimodal = UnimodalDecoder(config, cls=self.contrastive)
        if self.captioning:
            self.multimodal = MultimodalDecoder(config)
        if self.captioning or self.unimodal_language_model:
            self.softmax = Softmax(config)
        if self.contrastive:
            initializer = nn.initializers.constant(self.initial_temperature)
            self.temperature = self.param("temperature", nn.with_logical_partitioning(initializer, ()), ())

    def __call__(self, images: jax.Array, ids_BL: jax.Array, valid_BL: jax.Array) -> CocaOutput:
        """Both branches' outputs from one pass; `images` as for `encode_image`."""
        output = CocaOutput(softmax=self._softmax())
        text = self.unimodal(ids_BL, valid_BL)
        if self.contrastive or self.captioning:
            pooled = self.encode_image(images)
        if self.contrastive:
            output = output.replace(
                image_embedding_BE=_normalize(pooled.embedding_BD),
                text_embedding_BE=_normalize(text.embedding_BD),
                temperature=self.bounded_temperature(),
            )
        if self.captioning:
            output = output.replace(hidden_BLD=self.multimodal(text.tokens_BLD, valid_BL, pooled.tokens_BQD))
        if self.unimodal_language_model:
            output = output.replace(unimodal_hidden_BLD=text.tokens_BLD)
        return output

    def encode_image(self, images: jax.Array) -> PooledImage:
        """Poolers' outputs for images, uint8 or float in [0, 1] [B, S, S, 3], or for precomputed tokens [B, N, D]."""
        if images.ndim == 3:
            tokens_BND = images.astype(self.config.dtype)
        else:
            tokens_BND = self.image_encoder(images)
        return self.poolers(tokens_BND)

    def embed_images(self, images: jax.Array) -> jax.Array:
        """L2-normalised embeddings, float32 [B, E]."""
        return _normalize(self.encode_image(images).embedding_BD)

    def embed_texts(self, ids_BL: jax.Array, valid_BL: jax.Array) -> jax.Array:
        """L2-normalised embeddings, float32 [B, E]."""
        return _normalize(self.unimodal(ids_BL, valid_BL).embedding_BD)

    def bounded_temperature(self) -> jax.Array:
        """The temperature, scalar float32, at least 0.01."""
        # Straight through, so that a temperature that steps below the bound comes back by its own gradient.
        bounded = jnp.maximum(self.temperature, _LOWEST_TEMPERATURE)
        return self.temperature + jax.lax.stop_gradient(bounded - self.temperature)

    def extend(
        self, ids_BL: jax.Array, index: jax.Array, cache: DecoderCache, tokens_BQD: jax.Array | None = None
    ) -> tuple[jax.Array, DecoderCache]:
        """Logits of the tokens at positions index, index + 1, …, given the cache of the earlier ones.

        Args:
          ids_BL: the new tokens, [B, l].
          tokens_BQD: pooled image tokens, at the first call only: their keys and values are cached.

        Returns:
          float32 logits [B, l, V], and the cache that holds the new tokens too.
        """
        length = cache.unimodal.own.key_BSHK.shape[2]
        positions = index + jnp.arange(ids_BL.shape[1])
        mask = (jnp.arange(length) <= positions[:, None])[None, None]
        text: UnimodalText = self.unimodal.extend(ids_BL, mask, index, cache.unimodal)
        hidden_BLD, multimodal = self.multimodal.extend(text.tokens_BLD, mask, index, cache.multimodal, tokens_BQD)
        return self._softmax().logits(hidden_BLD), DecoderCache(text.cache, multimodal)

    def _softmax(self) -> SoftmaxWeights | None:
        if self.captioning or self.unimodal_language_model:
            return self.softmax(self.unimodal.embedding)
        return None


def build(config: Config) -> Coca:
    """The model with the branches that the loss weights ask for."""
    return Coca(
        config.model,
        contrastive=bool(config.loss.contrastive_weight),
        captioning=bool(config.loss.captioning_weight),
        unimodal_language_model=bool(config.loss.unimodal_language_model_weight),
        initial_temperature=config.loss.initial_temperature,
    )


def empty_cache(config: ModelConfig, batch: int, length: int) -> DecoderCache:
    """A cache for `length` text positions; it gets the image tokens' keys and values at the first `extend`."""

    def block(layers: int) -> BlockCache:
        shape = (layers, batch, length, config.heads, config.width // config.heads)
        return BlockCache(KeysValues(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)))

    return DecoderCache(block(config.text.unimodal_layers), block(config.text.multimodal_layers))


def init(model: Coca, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters as a plain nested dict."""
    return nn.unbox(_init(model, key))


def abstract_parameters(model: Coca) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of the parameters, and a tree of the same form with tuples of logical axes; allocates nothing."""
    boxed = jax.eval_shape(lambda: _init(model, jax.random.key(0)))
    is_spec = lambda node: isinstance(node, PartitionSpec)
    logical = jax.tree.map(lambda names: tuple(Axis(name) for name in names), nn.get_partition_spec(boxed), is_leaf=is_spec)
    return nn.unbox(boxed), logical


def _init(model: Coca, key: jax.Array) -> dict[str, Any]:
    image, text = model.config.image, model.config.text
    if image.kind == "precomputed":
        images = jnp.zeros((1, token_count(image), model.config.width), jnp.float32)
    else:
        images = jnp.zeros((1, image.size, image.size, 3), jnp.uint8)
    ids = jnp.zeros((1, text.length), jnp.int32)
    return model.init(key, images, ids, jnp.ones(ids.shape, bool))["params"]
