"""The model's compiled functions, as a `Batcher` calls them: static arguments first, then the parameters and arrays of rows."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from coca_jax import generation
from coca_jax.generation import GenerationOptions
from coca_jax.models import coca as models
from coca_jax.models.adapted import AdaptedCoca

log_likelihoods = functools.partial(jax.jit, static_argnames=("model", "pad_id"))(generation.log_likelihoods)


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(model: models.Coca, method: str, params: Any, *arrays: jax.Array) -> Any:
    return model.apply({"params": params}, *arrays, method=method)


@functools.partial(jax.jit, static_argnums=0)
def embed_videos(model: models.Coca, params: Any, clips: jax.Array) -> jax.Array:
    """Clips [B, T, H, W, 3] to the normalised means of their frames' embeddings [B, E]; memory does not grow with T."""
    frames = jax.lax.map(functools.partial(apply, model, "embed_images", params), jnp.swapaxes(clips, 0, 1))
    mean = frames.mean(axis=0)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


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
    special = {"bos_id": bos_id, "eos_id": eos_id, "pad_id": pad_id}
    keys_B = None
    if options.temperature:
        keys_B = jax.vmap(lambda draw: jax.random.fold_in(jax.random.key(draw[0]), draw[1]))(draws_B2)
    return generation.generate(model, params, images, options, **special, prompts_BP=prompts_BP, keys_B=keys_B)


@functools.partial(jax.jit, static_argnums=0)
def head_probabilities(model: AdaptedCoca, params: Any, images: jax.Array, *text: jax.Array) -> jax.Array:
    """Probabilities [B, C]; `text` is none, or ids [B, L] and which of them are valid."""
    variables = {"params": params}
    tokens = model.apply(variables, images, method="encode")
    arguments = (*text, text[1]) if text else ()
    return jax.nn.softmax(model.apply(variables, tokens, *arguments).logits_BC, axis=1)
