"""One compiled loop over tokens.

Image tokens are pooled, and their keys and values projected, once an image, for all of its beams; the prompt is read in
one pass; each further step runs one token of each stream through both decoder halves. The loop ends when every image
has its caption. What is generated for an image depends on neither its place in the batch, nor the others, nor the mesh.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from coca_jax.distributed.sharding import RULES, Axis
from coca_jax.errors import CocaError
from coca_jax.generation import beams
from coca_jax.generation.logits import allowed, repetition_penalized, sample
from coca_jax.generation.options import GenerationOptions
from coca_jax.generation.state import Special, State
from coca_jax.models.cache import empty_cache
from coca_jax.models.coca import Coca, generation_parameters
from coca_jax.models.text_decoder import causal_mask


def generate(
    model: Coca,
    params: Any,
    images: jax.Array,
    options: GenerationOptions = GenerationOptions(),
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    prompts_BP: jax.Array | None = None,
    keys_B: jax.Array | None = None,
) -> jax.Array:
    """A text for each image. To be compiled with `model`, `options` and the ids as constants.

    Args:
      model: with the captioning branch.
      params: its parameters.
      images: uint8 or float [B, S, S, 3], or precomputed tokens [B, N, D].
      bos_id, eos_id, pad_id: the vocabulary's. BOS and pad are never generated.
      prompts_BP: int32, the texts to continue, of different lengths: BOS, tokens, pads; by default BOS alone. One that
        fills the model's positions comes back as it is.
      keys_B: random keys, one an image, for sampling alone.

    Returns:
      int32 [B, L]: BOS, the prompt's tokens, those generated, EOS, pads; without EOS where max_tokens or the end of the
      positions came first.

    Raises:
      CocaError: the model cannot generate, or not so.
    """
    special, config = Special(bos_id, eos_id, pad_id), model.config
    options.check(config)
    if not model.branches.captioning:
        raise CocaError("this model has no captioning branch: it cannot generate text")
    if bool(options.temperature) != (keys_B is not None):
        raise CocaError("sampling needs keys_B, one random key an image, and nothing else takes them")
    if prompts_BP is None:
        prompts_BP = jnp.full((images.shape[0], 1), bos_id, jnp.int32)
    if len(prompts_BP) != len(images):
        raise CocaError(f"there are {len(prompts_BP)} prompts for {len(images)} images: give one for each")
    if prompts_BP.shape[1] > config.text.length:
        raise CocaError(f"prompts of {prompts_BP.shape[1]} tokens exceed the model's {config.text.length} positions")
    lengths_B = jnp.sum(prompts_BP != pad_id, axis=1)
    decoder = {"params": generation_parameters(params, config)}
    tokens_BQD = model.apply({"params": params}, images, method="encode_image").tokens_BQD

    def step(state: State) -> State:
        state, logits_BKV = _read_tokens(model, decoder, state, lengths_B, prompts_BP.shape[1])
        return _choose(state, logits_BKV, options, special, keys_B)

    # The prompt comes with image tokens, each later token with their cached keys and values: two traces, one loop.
    state = _start(model, prompts_BP, lengths_B, options, special)
    state, logits_BKV = _read_prompt(model, decoder, state, prompts_BP, lengths_B, pad_id, tokens_BQD)
    state = _choose(state, logits_BKV, options, special, keys_B)
    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done_B), step, state)
    tokens_BT = state.beams.best_tokens_BT if options.beams else state.tokens_BKT[:, 0]
    return _texts(prompts_BP, lengths_B, tokens_BT, config.text.length, pad_id)


def greedy(model: Coca, params: Any, images: jax.Array, *, bos_id: int, eos_id: int, pad_id: int) -> jax.Array:
    """The most likely next token at each position, until EOS: `generate` with its defaults."""
    return generate(model, params, images, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)


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
    model: Coca,
    decoder: Any,
    state: State,
    prompts_BP: jax.Array,
    lengths_B: jax.Array,
    pad_id: int,
    tokens_BQD: jax.Array,
) -> tuple[State, jax.Array]:
    """Fills the cache with image and prompt; logits [B, K, V] of the first token, the same for all streams."""
    batch, prompt_slots = prompts_BP.shape
    streams, slots = state.visible_BKS.shape[1:]
    mask_BPP = causal_mask(prompts_BP != pad_id)[:, 0]
    mask_BPS = jnp.pad(mask_BPP, ((0, 0), (0, 0), (0, slots - prompt_slots)))
    positions_BP = jnp.broadcast_to(jnp.arange(prompt_slots), prompts_BP.shape)
    output = model.apply(decoder, prompts_BP, positions_BP, mask_BPS, 0, state.cache, tokens_BQD, method="extend")
    last_B1D = jnp.take_along_axis(output.hidden_BLD, (lengths_B - 1)[:, None, None], axis=1)
    logits_B1V = model.apply(decoder, last_B1D, method="next_logits")
    return state.replace(cache=output.cache), jnp.broadcast_to(logits_B1V, (batch, streams, logits_B1V.shape[2]))


def _read_tokens(
    model: Coca, decoder: Any, state: State, lengths_B: jax.Array, prompt_slots: int
) -> tuple[State, jax.Array]:
    """Reads each stream's last token into its slot; logits [B, K, V] of the next."""
    batch, streams, _ = state.tokens_BKT.shape
    last_BK = jax.lax.dynamic_index_in_dim(state.tokens_BKT, state.count - 1, axis=2, keepdims=False)
    index = prompt_slots + (state.count - 1) * streams
    own_BKK = jnp.broadcast_to(jnp.eye(streams, dtype=bool), (batch, streams, streams))
    visible_BKS = jax.lax.dynamic_update_slice_in_dim(state.visible_BKS, own_BKK, index, axis=2)
    # Where an image is done, the loop may run past the last position, to no effect.
    positions_B = jnp.minimum(lengths_B + state.count - 1, model.config.text.length - 1)
    positions_BK = jnp.broadcast_to(positions_B[:, None], (batch, streams))
    output = model.apply(decoder, last_BK, positions_BK, visible_BKS, index, state.cache, method="extend")
    logits_BKV = model.apply(decoder, output.hidden_BLD, method="next_logits")
    return state.replace(visible_BKS=visible_BKS, cache=output.cache), logits_BKV


def _choose(
    state: State, logits_BKV: jax.Array, options: GenerationOptions, special: Special, keys_B: jax.Array | None
) -> State:
    """Appends a token to each stream, by its logits; on a mesh each device does so for its own images."""
    choose = functools.partial(_chosen, options=options, special=special)
    bare = state.replace(cache=None)
    axes, mesh = RULES[Axis.BATCH], jax.sharding.get_abstract_mesh()
    if not mesh.empty and len(logits_BKV) % math.prod(mesh.shape[axis] for axis in axes) == 0:
        # XLA gathers the logits of the whole batch for top_k, on every device and for every token, if it is let.
        rows, whole = PartitionSpec(axes), PartitionSpec()
        specs = jax.tree.map(lambda x: rows if x.ndim else whole, bare)
        choose = jax.shard_map(choose, in_specs=(specs, rows, rows), out_specs=specs, axis_names=set(axes))
    return choose(bare, logits_BKV, keys_B).replace(cache=state.cache)


def _chosen(
    state: State, logits_BKV: jax.Array, keys_B: jax.Array | None, options: GenerationOptions, special: Special
) -> State:
    logits_BKV = repetition_penalized(logits_BKV, state.tokens_BKT, options.repetition_penalty)
    never = jnp.array([special.bos_id, special.pad_id])
    logits_BKV = allowed(logits_BKV, never, special.eos_id, state.count >= options.min_tokens)
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
    return state.replace(count=count, tokens_BKT=tokens_BKT, done_B=done_B)


def _texts(prompts_BP: jax.Array, lengths_B: jax.Array, tokens_BT: jax.Array, length: int, pad_id: int) -> jax.Array:
    """Prompts with the generated tokens behind them, [B, L]."""

    def pad_to(x):
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=pad_id)

    behind_BL = jnp.arange(length) - lengths_B[:, None]  # how many tokens behind the prompt each position is
    generated_BL = jnp.take_along_axis(pad_to(tokens_BT), jnp.maximum(behind_BL, 0), axis=1)
    return jnp.where(behind_BL < 0, pad_to(prompts_BP), generated_BL).astype(jnp.int32)
