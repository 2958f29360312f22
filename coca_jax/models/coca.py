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
from coca_jax.distributed.sharding import Axis, constrain
from coca_jax.models.image_encoder import image_encoder, token_count
from coca_jax.models.layers import BlockCache, CachedKeysValues, unstacked
from coca_jax.models.poolers import PooledImage, Poolers
from coca_jax.models.text_decoder import MultimodalDecoder, Softmax, SoftmaxWeights, UnimodalDecoder, UnimodalText

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
    """Keys and values of both decoder halves, one entry a layer."""

    unimodal: tuple[BlockCache, ...]
    multimodal: tuple[BlockCache, ...]


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
        tokens_BND = images.astype(self.config.dtype) if images.ndim == 3 else self.image_encoder(images)
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
        self,
        ids_BL: jax.Array,
        positions_BL: jax.Array,
        mask_BLS: jax.Array,
        index: jax.Array,
        cache: DecoderCache,
        tokens_BQD: jax.Array | None = None,
    ) -> tuple[jax.Array, DecoderCache]:
        """The decoder's output for new tokens, given the cache of earlier ones; with `generation_parameters`.

        The cache has slots, in any order: the mask alone says what a token attends to. So several texts for one image
        share its slots, and the image tokens' keys and values, as rows of the length axis.

        Args:
          ids_BL: the new tokens.
          positions_BL: where in the text each stands.
          mask_BLS: bool, the slots that each attends to; its own among them.
          index: the new tokens take the slots index, index + 1, …
          tokens_BQD: pooled image tokens, at the first call only: their keys and values are cached.

        Returns:
          What `next_logits` reads, [B, L, D], and the cache that holds the new tokens too.
        """
        mask = mask_BLS[:, None]
        text: UnimodalText = self.unimodal.extend(ids_BL, positions_BL, mask, index, cache.unimodal)
        hidden_BLD, multimodal = self.multimodal.extend(text.tokens_BLD, mask, index, cache.multimodal, tokens_BQD)
        return hidden_BLD, DecoderCache(text.cache, multimodal)

    def next_logits(self, hidden_BLD: jax.Array) -> jax.Array:
        """Logits of the token after each of `hidden_BLD`, float32 [B, L, V]."""
        return self._softmax().logits(hidden_BLD)

    def _softmax(self) -> SoftmaxWeights | None:
        if self.captioning or self.unimodal_language_model:
            return self.softmax(self.unimodal.embedding)
        return None


def build(config: Config) -> Coca:
    """The model with the branches that the loss weights ask for."""
    losses = config.objective.pretraining
    return Coca(
        config.model,
        contrastive=bool(losses.contrastive_weight),
        captioning=bool(losses.captioning_weight),
        unimodal_language_model=bool(losses.unimodal_language_model_weight),
        initial_temperature=losses.initial_temperature,
    )


def empty_cache(config: ModelConfig, batch: int, slots: int) -> DecoderCache:
    """A cache for `slots` tokens an image; it gets the image tokens' keys and values at the first `extend`."""

    def zeros(*shape: int) -> jax.Array:
        x = jnp.zeros((batch, config.heads, *shape), config.dtype)
        return constrain(x, Axis.BATCH, Axis.ACTIVATION_HEADS, Axis.LENGTH, Axis.LENGTH)

    head_dim = config.width // config.heads

    def block():
        return BlockCache(CachedKeysValues(zeros(head_dim, slots), zeros(slots, head_dim)))

    def blocks(layers):
        return tuple(block() for _ in range(layers))

    return DecoderCache(blocks(config.text.unimodal_layers), blocks(config.text.multimodal_layers))


def generation_parameters(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Parameters as `extend` and `next_logits` read them: the decoder's unstacked, its kernels in the compute dtype.

    To be called once, before the loop over tokens, which would otherwise cast and copy them at each. What is of this form
    already stays as it is.
    """
    if "blocks" not in params["unimodal"]["layers"]:
        return params
    return params | decoder_parameters(params, config)


def decoder_parameters(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Of `generation_parameters` what differs from the parameters themselves."""

    def cast(path: tuple, x: jax.Array) -> jax.Array:
        return x.astype(config.dtype) if path[-1].key in ("kernel", "embedding") else x

    halves = {name: params[name] | {"layers": unstacked(params[name]["layers"])} for name in ("unimodal", "multimodal")}
    return jax.tree_util.tree_map_with_path(cast, halves | {"softmax": params["softmax"]})


def init(model: Coca, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters as a plain nested dict."""
    return nn.unbox(_init(model, key))


def abstract_parameters(model: Coca) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of the parameters, and a tree of the same form with tuples of logical axes; allocates nothing."""
    boxed = jax.eval_shape(lambda: _init(model, jax.random.key(0)))

    def is_spec(node):
        return isinstance(node, PartitionSpec)

    logical = jax.tree.map(
        lambda names: tuple(Axis(name) for name in names), nn.get_partition_spec(boxed), is_leaf=is_spec
    )
    return nn.unbox(boxed), logical


def _init(model: Coca, key: jax.Array) -> dict[str, Any]:
    image, text = model.config.image, model.config.text
    if image.kind == "precomputed":
        images = jnp.zeros((1, token_count(image), model.config.width), jnp.float32)
    else:
        images = jnp.zeros((1, image.size, image.size, 3), jnp.uint8)
    ids = jnp.zeros((1, text.length), jnp.int32)
    return model.init(key, images, ids, jnp.ones(ids.shape, bool))["params"]
