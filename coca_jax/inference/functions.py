"""Compiled functions of a model's parameters and a batch.

Static arguments come first, then the parameters, then arrays whose rows belong together.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax import generation
from coca_jax.config import ModelConfig
from coca_jax.generation import GenerationOptions
from coca_jax.models import coca as models


@functools.partial(jax.jit, static_argnums=0)
def embed_images(model: models.Coca, params: Any, images: jax.Array) -> jax.Array:
    """Images [B, S, S, 3] or image tokens [B, N, D] to L2-normalised embeddings [B, E]."""
    return model.apply({"params": params}, images, method="embed_images")


@functools.partial(jax.jit, static_argnums=0)
def embed_videos(model: models.Coca, params: Any, clips: jax.Array) -> jax.Array:
    """Clips [B, T, H, W, 3] to the normalised means of their frames' embeddings [B, E].

    Frame by frame, so that memory does not grow with T.
    """
    frames = jax.lax.map(functools.partial(embed_images, model, params), jnp.swapaxes(clips, 0, 1))
    mean = frames.mean(axis=0)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnums=(0, 1))
def embed_texts(model: models.Coca, pad_id: int, params: Any, ids_BL: jax.Array) -> jax.Array:
    """Token ids to L2-normalised embeddings [B, E]."""
    return model.apply({"params": params}, ids_BL, ids_BL != pad_id, method="embed_texts")


@functools.partial(jax.jit, static_argnums=(0, 1))
def log_likelihoods(model: models.Coca, pad_id: int, ids_CL: jax.Array, params: Any, images: jax.Array) -> jax.Array:
    """log p(text | image) of C texts for B images, [B, C]."""
    return generation.log_likelihoods(model, params, images, ids_CL, pad_id)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def generate(
    model: models.Coca,
    options: GenerationOptions,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    params: Any,
    images: jax.Array,
    prompts_BP: jax.Array,
    draws_B2: jax.Array,
) -> jax.Array:
    """Texts [B, L] that continue the prompts [B, P]; `draws_B2` holds seed and number of each row's random key."""
    special = dict(bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    keys_B = None
    if options.temperature:
        keys_B = jax.vmap(lambda draw: jax.random.fold_in(jax.random.key(draw[0]), draw[1]))(draws_B2)
    return generation.generate(model, params, images, options, **special, prompts_BP=prompts_BP, keys_B=keys_B)


def generation_parameters(config: ModelConfig, params: Any) -> Any:
    """`models.coca.generation_parameters`, so that `generate` and `log_likelihoods` need not convert at each call.

    Parameters that do not change, such as the image encoder's, are not copied.
    """
    return params | _decoder_parameters(params, config)


_decoder_parameters = jax.jit(models.decoder_parameters, static_argnums=1)
