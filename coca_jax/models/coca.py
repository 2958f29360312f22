"""CoCa: image encoder, poolers, unimodal and multimodal decoder; the inputs of both losses from one forward pass.

Text is given as token ids [B, L] (BOS, tokens, EOS, pads) with `valid_BL`, True where a token is not a pad: the model
knows no special ids.
"""

import dataclasses
import functools
import typing
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from coca_jax.config import ModelConfig, PretrainingConfig
from coca_jax.distributed.sharding import Axis
from coca_jax.models.block import unstacked
from coca_jax.models.image_encoder import image_encoder, token_count
from coca_jax.models.layers import named
from coca_jax.models.poolers import PooledImage, Poolers
from coca_jax.models.text_decoder import (
    DecoderCache,
    DecoderOutput,
    MultimodalDecoder,
    Softmax,
    SoftmaxWeights,
    UnimodalDecoder,
)

_LOWEST_TEMPERATURE = 0.01  # CLIP's bound: logits are scaled by at most 100


@dataclasses.dataclass(frozen=True)
class Branches:
    """The parts of a model that its objective trains; one that is False has neither parameters nor compute."""

    contrastive: bool = True  # image and text embeddings: CLS, contrastive pooler, temperature
    captioning: bool = True  # multimodal decoder and softmax
    unimodal_language_model: bool = False  # the softmax reads the unimodal decoder too
    initial_temperature: float = PretrainingConfig.initial_temperature


@struct.dataclass
class CocaOutput:
    """The outputs of one forward pass; None for a branch that does not exist."""

    image_embedding_BE: Array | None = None  # L2-normalised, float32
    text_embedding_BE: Array | None = None
    temperature: Array | None = None  # scalar, float32, at least 0.01
    hidden_BLD: Array | None = None  # `softmax.logits(hidden_BLD)[:, t]` predicts token t + 1
    unimodal_hidden_BLD: Array | None = None  # likewise, for the unimodal language-model loss
    softmax: SoftmaxWeights | None = None


def _normalize(x: Array | None) -> Array:
    if x is None:
        raise ValueError("the model has no contrastive branch: it gives no embeddings")
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class Coca(nn.Module):
    """The model, with the parts that `branches` names."""

    config: ModelConfig
    branches: Branches = Branches()
    images_per_example: int = 0  # frames of a clip, or 2 of a pair; 0: one image, without an axis of its own

    if typing.TYPE_CHECKING:  # flax also types the case that `apply` returns mutated variables, which no model here has

        def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def setup(self) -> None:
        config, branches = self.config, self.branches
        if config.image.kind != "precomputed":
            self.image_encoder = image_encoder(config, "image_encoder")
        self.poolers = Poolers(config, branches.contrastive, branches.captioning)
        self.unimodal = UnimodalDecoder(config, cls=branches.contrastive)
        if branches.captioning:
            self.multimodal = MultimodalDecoder(config)
        if self._has_softmax:
            self.softmax = Softmax(config)
        if branches.contrastive:
            initializer = named(nn.initializers.constant(branches.initial_temperature))
            self.temperature = self.param("temperature", initializer, ())

    def __call__(self, images: Array, ids_BL: Array, valid_BL: Array) -> CocaOutput:
        """The outputs of all branches from one pass; `images` as for `encode_image`."""
        branches = self.branches
        outputs: dict[str, Any] = {"softmax": self._softmax() if self._has_softmax else None}
        text = self.unimodal(ids_BL, valid_BL)
        if branches.contrastive or branches.captioning:
            chex.assert_equal_shape_prefix([images, ids_BL], 1)
            pooled = self.encode_image(images)
        if branches.contrastive:
            outputs["image_embedding_BE"] = _normalize(pooled.embedding_BD)
            outputs["text_embedding_BE"] = _normalize(text.embedding_BD)
            outputs["temperature"] = self.bounded_temperature()
        if branches.captioning:
            outputs["hidden_BLD"] = self.multimodal(text.hidden_BLD, valid_BL, pooled.tokens_BQD).hidden_BLD
        if branches.unimodal_language_model:
            outputs["unimodal_hidden_BLD"] = text.hidden_BLD
        return CocaOutput(**outputs)

    def encode_image(self, images: Array) -> PooledImage:
        """The poolers' outputs for images, uint8 or float in [0, 1] [B, S, S, 3], or precomputed tokens [B, N, D].

        Of clips [B, T, S, S, 3] each frame is pooled for itself: the decoder attends to the tokens of all, and the embedding
        is the mean of theirs, normalised (paper §4.2.2, MSR-VTT).
        """
        chex.assert_rank(images, {3, 4, 5})
        if images.ndim == 5:
            batch, frames = images.shape[:2]
            pooled = self.encode_image(images.reshape(-1, *images.shape[2:]))
            tokens_BQD, embedding_BD = pooled.tokens_BQD, pooled.embedding_BD
            if tokens_BQD is not None:
                tokens_BQD = tokens_BQD.reshape(batch, -1, self.config.width)
            if embedding_BD is not None:
                embedding_BD = _normalize(embedding_BD).reshape(batch, frames, -1).mean(axis=1)
            return PooledImage(tokens_BQD, embedding_BD)
        tokens_BND = images.astype(self.config.dtype) if images.ndim == 3 else self.image_encoder(images)
        chex.assert_shape(tokens_BND, (len(images), None, self.config.width))
        return self.poolers(tokens_BND)

    def embed_images(self, images: Array) -> Array:
        """L2-normalised embeddings, float32 [B, E]."""
        return _normalize(self.encode_image(images).embedding_BD)

    def embed_texts(self, ids_BL: Array, valid_BL: Array) -> Array:
        """L2-normalised embeddings, float32 [B, E]."""
        return _normalize(self.unimodal(ids_BL, valid_BL).embedding_BD)

    def bounded_temperature(self) -> Array:
        """The temperature, scalar float32, at least 0.01."""
        # Straight through, so that a temperature that steps below the bound comes back by its own gradient.
        bounded = jnp.maximum(self.temperature, _LOWEST_TEMPERATURE)
        return self.temperature + jax.lax.stop_gradient(bounded - self.temperature)

    def extend(
        self,
        ids_BL: Array,
        positions_BL: Array,
        mask_BLS: Array,
        index: Array | int,
        cache: DecoderCache,
        tokens_BQD: Array | None = None,
    ) -> DecoderOutput:
        """The decoder's output for new tokens, given the cache of earlier ones; with `generation_parameters`.

        The mask alone determines which of the cache's slots a token attends to. So several texts for one image share its
        slots, and the image tokens' keys and values, as rows of the length axis.

        Args:
          positions_BL: the new tokens' positions in the text.
          mask_BLS: bool, the slots that each attends to; its own among them.
          index: the new tokens take the slots index, index + 1, …
          tokens_BQD: pooled image tokens, at the first call only: their keys and values are cached.

        Returns:
          The input of `next_logits`, and the `DecoderCache` with the new keys and values.
        """
        chex.assert_equal_shape([ids_BL, positions_BL])
        chex.assert_shape(mask_BLS, (*ids_BL.shape, None))
        mask = mask_BLS[:, None]
        text = self.unimodal.extend(ids_BL, positions_BL, mask, index, cache.unimodal)
        output = self.multimodal.extend(text.hidden_BLD, mask, index, cache.multimodal, tokens_BQD)
        return DecoderOutput(output.hidden_BLD, cache=DecoderCache(text.cache, output.cache))

    def next_logits(self, hidden_BLD: Array) -> Array:
        """Logits of the token after each of `hidden_BLD`, float32 [B, L, V]."""
        return self._softmax().logits(hidden_BLD)

    def initialize(self) -> Any:
        """Calls everything that has parameters; a subclass with other parts defines its own."""
        return self(example_images(self), *example_texts(self))

    @property
    def can_embed(self) -> bool:
        """Whether it gives embeddings of images and texts."""
        return self.branches.contrastive

    @property
    def can_caption(self) -> bool:
        """Whether it generates texts."""
        return self.branches.captioning

    @property
    def _has_softmax(self) -> bool:
        return self.branches.captioning or self.branches.unimodal_language_model

    def _softmax(self) -> SoftmaxWeights:
        return self.softmax(self.unimodal.embedding)


def generation_parameters(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Parameters in the form of `extend` and `next_logits`: the decoder's unstacked, its kernels in the compute dtype.

    To be called once, before the loop over tokens. Entries that already have this form are the same arrays.
    """
    if "blocks" not in params["unimodal"]["layers"]:
        return params
    return params | _decoder_parameters({name: params[name] for name in ("unimodal", "multimodal", "softmax")}, config)


@functools.partial(jax.jit, static_argnums=1)
def _decoder_parameters(params: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    def cast(path: tuple, x: Array) -> Array:
        return x.astype(config.dtype) if path[-1].key in ("kernel", "embedding") else x

    halves = {name: params[name] | {"layers": unstacked(params[name]["layers"])} for name in ("unimodal", "multimodal")}
    return jax.tree_util.tree_map_with_path(cast, halves | {"softmax": params["softmax"]})


def example_images(model: Coca) -> Array:
    """Images of the form that the model takes, one example."""
    image = model.config.image
    if image.kind == "precomputed":
        return jnp.zeros((1, token_count(image), model.config.width), jnp.float32)
    many = (model.images_per_example,) if model.images_per_example else ()
    return jnp.zeros((1, *many, image.size, image.size, 3), jnp.uint8)


def example_texts(model: Coca) -> tuple[Array, Array]:
    """Ids, and `valid`, of one example."""
    ids = jnp.zeros((1, model.config.text.length), jnp.int32)
    return ids, jnp.ones(ids.shape, bool)


def init(model: Coca, key: Array) -> dict[str, Any]:
    """Fresh float32 parameters as a plain nested dict."""
    return nn.unbox(_init(model, key))


@functools.lru_cache(maxsize=8)  # each start asks several times, and each trace of a model takes a second
def abstract_parameters(model: Coca) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of the parameters, and a tree of the same form with tuples of logical axes; allocates nothing.

    Callers share both trees, and do not change them.
    """
    boxed = jax.eval_shape(lambda: _init(model, jax.random.key(0)))
    logical = jax.tree.map(lambda names: tuple(map(Axis, names)), nn.get_partition_spec(boxed))
    return nn.unbox(boxed), logical


def _init(model: Coca, key: Array) -> dict[str, Any]:
    return model.init(key, method="initialize")["params"]
