"""Generation in one compiled loop over tokens, with a cache of keys and values.

An image's tokens are pooled, and their keys and values projected, once for all of its beams; the prompt is read in one
pass; each further step runs one token of each stream through both decoder halves. The loop ends when every image has its
caption. An image's caption depends on neither its position in the batch, nor the other images, nor the mesh.
"""

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from coca_jax.distributed.sharding import Axis, mesh_axes, spec, ways
from coca_jax.errors import CocaError
from coca_jax.generation import beams
from coca_jax.generation.options import GREEDY, GenerationOptions
from coca_jax.generation.sampling import penalize_repetition, sample
from coca_jax.generation.state import Special, State
from coca_jax.models.coca import Coca, generation_parameters
from coca_jax.models.text_decoder import causal_mask, empty_cache


def generate(
    model: Coca,
    params: Any,
    images: jax.Array,
    options: GenerationOptions = GREEDY,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    prompts_BP: jax.Array | None = None,
    keys_B: jax.Array | None = None,
) -> jax.Array:
    """A text for each image; to be compiled with `model`, `options` and the ids as constants.

    Args:
      images: uint8 or float [B, S, S, 3], or precomputed tokens [B, N, D].
      bos_id, eos_id, pad_id: of the vocabulary. BOS and pad are never generated.
      prompts_BP: int32, the texts to continue, of different lengths: BOS, tokens, pads; by default BOS alone. One that
        fills the model's positions is returned unchanged.
      keys_B: random keys, one an image; for sampling only.

    Returns:
      int32 [B, L]: BOS, the prompt's tokens, the generated ones, EOS, pads; without EOS where max_tokens or the end of
      the positions was reached first.

    Raises:
      CocaError: the model has no captioning branch, or options or keys do not fit it.
    """
    special, config = Special(bos_id, eos_id, pad_id), model.config
    options.check(config)
    if not model.branches.captioning:
        raise CocaError("this model has no captioning branch: it cannot generate text")
    if bool(options.temperature) != (keys_B is not None):
        raise CocaError("keys_B, one random key an image, is needed for sampling, and for sampling only")
    if prompts_BP is None:
        prompts_BP = jnp.full((images.shape[0], 1), bos_id, jnp.int32)
    chex.assert_shape(prompts_BP, (images.shape[0], None))
    chex.assert_axis_dimension_lteq(prompts_BP, 1, config.text.length)
    lengths_B = jnp.sum(prompts_BP != pad_id, axis=1)
    decoder = {"params": generation_parameters(params, config)}
    tokens_BQD = model.apply({"params": params}, images, method="encode_image").tokens_BQD

    def step(state: State) -> State:
        state, logits_BKV = _read_tokens(model, decoder, state, lengths_B, prompts_BP.shape[1])
        return _choose(state, logits_BKV, options, special, keys_B)

    # The prompt is read with image tokens, later tokens with their cached keys and values: two traces, one loop.
    state = _start(model, prompts_BP, lengths_B, options, special)
    state, logits_BKV = _read_prompt(model, decoder, state, prompts_BP, pad_id, tokens_BQD)
    state = _choose(state, logits_BKV, options, special, keys_B)
    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done_B), step, state)
    tokens_BT = state.tokens_BKT[:, 0] if state.beams is None else state.beams.best_tokens_BT
    return _texts(prompts_BP, lengths_B, tokens_BT, config.text.length, pad_id)


def _start(
    model: Coca, prompts_BP: jax.Array, lengths_B: jax.Array, options: GenerationOptions, special: Special
) -> State:
    batch, prompt_slots = prompts_BP.shape
    length, streams = model.config.text.length, max(options.beams, 1)
    most = options.max_tokens or length - 1
    limit_B = jnp.minimum(most, length - lengths_B)
    slots = prompt_slots + max(most - 1, 1) * streams  # the last token is not read
    visible_BS = jnp.pad(prompts_BP != special.pad_id, ((0, 0), (0, slots - prompt_slots)))
    return State(
        count=jnp.zeros((), jnp.int32),
        limit_B=limit_B,
        tokens_BKT=jnp.full((batch, streams, most), special.pad_id, jnp.int32),
        done_B=limit_B <= 0,
        visible_BKS=jnp.broadcast_to(visible_BS[:, None], (batch, streams, slots)),
        cache=empty_cache(model.config, batch, slots),
        beams=beams.first(batch, streams, most, special.pad_id) if options.beams else None,
    )


def _read_prompt(
    model: Coca, decoder: Any, state: State, prompts_BP: jax.Array, pad_id: int, tokens_BQD: jax.Array
) -> tuple[State, jax.Array]:
    """The state with image and prompt in its cache, and the first token's logits [B, K, V], equal for all streams."""
    batch, prompt_slots = prompts_BP.shape
    streams, slots = state.visible_BKS.shape[1:]
    visible_BP = prompts_BP != pad_id
    mask_BPP = causal_mask(visible_BP)[:, 0]
    mask_BPS = jnp.pad(mask_BPP, ((0, 0), (0, 0), (0, slots - prompt_slots)))
    positions_BP = jnp.broadcast_to(jnp.arange(prompt_slots), prompts_BP.shape)
    output = model.apply(decoder, prompts_BP, positions_BP, mask_BPS, 0, state.cache, tokens_BQD, method="extend")
    last_B = jnp.sum(visible_BP, axis=1) - 1
    last_B1D = jnp.take_along_axis(output.hidden_BLD, last_B[:, None, None], axis=1)
    logits_B1V = model.apply(decoder, last_B1D, method="next_logits")
    logits_BKV = jnp.broadcast_to(logits_B1V, (batch, streams, logits_B1V.shape[2]))
    return dataclasses.replace(state, cache=output.cache), logits_BKV


def _read_tokens(
    model: Coca, decoder: Any, state: State, lengths_B: jax.Array, prompt_slots: int
) -> tuple[State, jax.Array]:
    """The state with each stream's last token in the cache, and the next token's logits [B, K, V]."""
    batch, streams, _ = state.tokens_BKT.shape
    last_BK = jax.lax.dynamic_index_in_dim(state.tokens_BKT, state.count - 1, axis=2, keepdims=False)
    index = prompt_slots + (state.count - 1) * streams
    own_BKK = jnp.broadcast_to(jnp.eye(streams, dtype=bool), (batch, streams, streams))
    visible_BKS = jax.lax.dynamic_update_slice_in_dim(state.visible_BKS, own_BKK, index, axis=2)
    # For an image that is done, the loop may run past the last position, without effect.
    positions_B = jnp.minimum(lengths_B + state.count - 1, model.config.text.length - 1)
    positions_BK = jnp.broadcast_to(positions_B[:, None], (batch, streams))
    output = model.apply(decoder, last_BK, positions_BK, visible_BKS, index, state.cache, method="extend")
    logits_BKV = model.apply(decoder, output.hidden_BLD, method="next_logits")
    return dataclasses.replace(state, visible_BKS=visible_BKS, cache=output.cache), logits_BKV


def _choose(
    state: State, logits_BKV: jax.Array, options: GenerationOptions, special: Special, keys_B: jax.Array | None
) -> State:
    """The state with one more token in each stream; on a mesh each device chooses for its own images."""
    choose = functools.partial(_choose_locally, options=options, special=special)
    bare = dataclasses.replace(state, cache=None)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and len(logits_BKV) % ways(mesh, Axis.BATCH) == 0:
        # Otherwise XLA would gather the logits of the whole batch for top_k, on every device and for every token.
        rows = spec(Axis.BATCH)
        specs = jax.tree.map(lambda x: rows if x.ndim else PartitionSpec(), bare)
        names = set(mesh_axes(Axis.BATCH))
        choose = jax.shard_map(choose, in_specs=(specs, rows, rows), out_specs=specs, axis_names=names)
    return dataclasses.replace(choose(bare, logits_BKV, keys_B), cache=state.cache)


def _choose_locally(
    state: State, logits_BKV: jax.Array, keys_B: jax.Array | None, options: GenerationOptions, special: Special
) -> State:
    logits_BKV = penalize_repetition(logits_BKV, state.tokens_BKT, options.repetition_penalty)
    logits_BKV = logits_BKV.at[..., jnp.array([special.bos_id, special.pad_id])].set(-jnp.inf)
    eos_BK = jnp.where(state.count >= options.min_tokens, logits_BKV[..., special.eos_id], -jnp.inf)
    logits_BKV = logits_BKV.at[..., special.eos_id].set(eos_BK)
    if options.beams:
        return beams.search(state, logits_BKV, special, options.length_penalty)
    logits_BV = logits_BKV[:, 0]
    if keys_B is not None:
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, state.count)
        next_B = jax.vmap(sample, (0, 0, None))(keys_B, logits_BV, options)
    else:
        next_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    next_B = jnp.where(state.done_B, special.pad_id, next_B)
    count = state.count + 1
    done_B = state.done_B | (next_B == special.eos_id) | (count >= state.limit_B)
    tokens_BKT = state.tokens_BKT.at[:, 0, count - 1].set(next_B)
    return dataclasses.replace(state, count=count, tokens_BKT=tokens_BKT, done_B=done_B)


def _texts(prompts_BP: jax.Array, lengths_B: jax.Array, tokens_BT: jax.Array, length: int, pad_id: int) -> jax.Array:
    """The prompts, each followed by its generated tokens, [B, L]."""

    def padded(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=pad_id)

    # Of each position among the generated tokens; negative: prompt.
    index_BL = jnp.arange(length)[None] - lengths_B[:, None]
    generated_BL = jnp.take_along_axis(padded(tokens_BT), jnp.maximum(index_BL, 0), axis=1)
    return jnp.where(index_BL < 0, padded(prompts_BP), generated_BL).astype(jnp.int32)
