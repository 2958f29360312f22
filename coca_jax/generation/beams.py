"""Beam search with length normalisation and early termination.

Sources: the score of a hypothesis, GNMT (arXiv 1609.08144, Eq. 14); 2K candidates for K beams, so that K can go on after
any number have ended, and the end after K ended hypotheses, fairseq's `beam_search.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from coca_jax.generation.state import Beams, Special, State


def length_divisor(tokens: jax.Array | int, penalty: float) -> jax.Array:
    """The divisor of log P that gives a hypothesis' score (GNMT, Eq. 14); `tokens` are the generated ones with EOS."""
    return ((5.0 + tokens) / 6.0) ** penalty


def first(batch: int, streams: int, tokens: int, pad_id: int) -> Beams:
    """The state before the first token: one live stream, because all of them would be the same."""
    live = jnp.full((batch, streams), -jnp.inf).at[:, 0].set(0.0)
    pads = jnp.full((batch, tokens), pad_id, jnp.int32)
    return Beams(live, jnp.full(batch, -jnp.inf), pads, jnp.zeros(batch, jnp.int32))


def search(state: State, logits_BKV: jax.Array, special: Special, penalty: float) -> State:
    """The state with one more token for each stream.

    The candidates are the 2K most likely continuations of the K streams. Those that end with EOS and are among the first
    K end a hypothesis; the first K of the others are the new streams. An image is done when K hypotheses have ended
    (fairseq's rule; with one beam it makes the search greedy), or earlier when no live stream can score higher than the
    best ended hypothesis, or when the streams have the maximum length: then they compete with the ended ones. The best
    hypothesis is kept. Logits are -inf for forbidden tokens; `penalty` is that of `length_divisor`, not negative.
    """
    beams, count = state.beams, state.count + 1
    assert beams is not None
    streams = logits_BKV.shape[1]
    score_BC, parent_BC, token_BC = _candidates(beams.live_BK, logits_BKV, 2 * streams)
    ends_BC = token_BC == special.eos_id

    def of_parents(index_BN: jax.Array, x: jax.Array) -> jax.Array:  # rows of x [B, K, …] for the candidates' parents
        parents = jnp.take_along_axis(parent_BC, index_BN, axis=1)
        return jnp.take_along_axis(x, parents[..., None], axis=1)

    def tokens_of(index_BN: jax.Array) -> jax.Array:  # all tokens of the candidates, [B, N, T]
        tokens = of_parents(index_BN, state.tokens_BKT)
        return tokens.at[:, :, count - 1].set(jnp.take_along_axis(token_BC, index_BN, axis=1))

    ended_BK = jnp.where(ends_BC, score_BC, -jnp.inf)[:, :streams]
    live_BK, chosen_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, score_BC), streams)
    tokens_BKT = tokens_of(chosen_BK)
    first_BK = jnp.broadcast_to(jnp.arange(streams), ended_BK.shape)
    beams = _keep_best(beams, state.done_B, ended_BK / length_divisor(count, penalty), tokens_of(first_BK))
    ended_B = beams.ended_B + jnp.sum(ended_BK > -jnp.inf, axis=1)
    beams = dataclasses.replace(beams, live_BK=live_BK, ended_B=ended_B)

    full_B = count >= state.limit_B
    longest_BK = live_BK / length_divisor(state.limit_B, penalty)[:, None]  # upper bounds of the live streams' scores
    beams = _keep_best(beams, state.done_B | ~full_B, longest_BK, tokens_BKT)
    done_B = state.done_B | full_B | (beams.ended_B >= streams) | (beams.best_B >= jnp.max(longest_BK, axis=1))
    return dataclasses.replace(
        state,
        count=count,
        tokens_BKT=tokens_BKT,
        done_B=done_B,
        visible_BKS=of_parents(chosen_BK, state.visible_BKS),
        beams=beams,
    )


def _candidates(live_BK: jax.Array, logits_BKV: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` most likely continuations of each image: log probabilities, streams and tokens, [B, count] each."""
    # First the best of each stream: a sort of K * V values would cost more. They are chosen by the logits, because sums
    # with log probabilities are rounded and may tie: one beam must choose as greedy decoding does, to the last bit.
    batch, streams, vocabulary = logits_BKV.shape
    each = min(count, vocabulary)
    logits_BKC, token_BKC = jax.lax.top_k(logits_BKV, each)
    score_BKC = live_BK[..., None] + (logits_BKC - jax.nn.logsumexp(logits_BKV, axis=-1, keepdims=True))
    score_BC, index_BC = jax.lax.top_k(score_BKC.reshape(batch, streams * each), count)
    token_BC = jnp.take_along_axis(token_BKC.reshape(batch, streams * each), index_BC, axis=1)
    return score_BC, index_BC // each, token_BC


def _keep_best(beams: Beams, frozen_B: jax.Array, score_BN: jax.Array, tokens_BNT: jax.Array) -> Beams:
    """`beams` with the best of N more hypotheses where it scores higher than the best so far; unchanged where frozen."""
    index_B1 = jnp.argmax(score_BN, axis=1)[:, None]
    score_B = jnp.take_along_axis(score_BN, index_B1, axis=1)[:, 0]
    tokens_BT = jnp.take_along_axis(tokens_BNT, index_B1[..., None], axis=1)[:, 0]
    better_B = (score_B > beams.best_B) & ~frozen_B
    return dataclasses.replace(
        beams,
        best_B=jnp.where(better_B, score_B, beams.best_B),
        best_tokens_BT=jnp.where(better_B[:, None], tokens_BT, beams.best_tokens_BT),
    )
