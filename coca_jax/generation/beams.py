"""Beam search over the next tokens."""

import jax
import jax.numpy as jnp

from coca_jax.generation.state import Beams, Special, State


def length_divisor(tokens: jax.Array | int, penalty: float) -> jax.Array:
    """((5 + tokens) / 6) ** penalty, by which log P is divided to give the score (GNMT, arXiv 1609.08144, Eq. 14).

    Args:
      tokens: how many were generated, EOS among them, BOS and prompt not.
    """
    return ((5.0 + tokens) / 6.0) ** penalty


def first(batch: int, streams: int, tokens: int, pad_id: int) -> Beams:
    """Before the first token: all streams would be the same, so that only one is live."""
    live = jnp.full((batch, streams), -jnp.inf).at[:, 0].set(0.0)
    nothing = jnp.full((batch, tokens), pad_id, jnp.int32)
    return Beams(live, jnp.full(batch, -jnp.inf), nothing, jnp.zeros(batch, jnp.int32))


def search(state: State, logits_BKV: jax.Array, special: Special, penalty: float) -> State:
    """One more token for each stream.

    Of all continuations of the K streams the 2K most likely are looked at. Those that end with EOS and are among the
    first K have ended; the first K of the others live on. An image is done when K hypotheses have ended (fairseq's
    rule; with one beam it makes the search greedy), or earlier when no live one can score higher than the best that has
    ended, or when the streams are as long as may be: then they compete with those that ended. The best of all is kept.

    Args:
      logits_BKV: of the next token; -inf for what may not come.
      penalty: see `length_divisor`; not negative.
    """
    beams, count = state.beams, state.count + 1
    streams = logits_BKV.shape[1]
    score_BC, parent_BC, token_BC = _candidates(beams.live_BK, logits_BKV, 2 * streams)
    ends_BC = token_BC == special.eos_id

    def followed(index_BN: jax.Array, x: jax.Array) -> jax.Array:  # x [B, K, …] of the parents of chosen candidates
        parents = jnp.take_along_axis(parent_BC, index_BN, axis=1)
        return jnp.take_along_axis(x, parents[..., None], axis=1)

    def continued(index_BN: jax.Array) -> jax.Array:  # the tokens of chosen candidates, [B, N, T]
        tokens = followed(index_BN, state.tokens_BKT)
        return tokens.at[:, :, count - 1].set(jnp.take_along_axis(token_BC, index_BN, axis=1))

    ended_BK = jnp.where(ends_BC, score_BC, -jnp.inf)[:, :streams]
    live_BK, chosen_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, score_BC), streams)
    tokens_BKT = continued(chosen_BK)
    beams = _keep_best(beams, state.done_B, ended_BK / length_divisor(count, penalty), continued(_places(ended_BK)))
    beams = beams.replace(live_BK=live_BK, ended_B=beams.ended_B + jnp.sum(ended_BK > -jnp.inf, axis=1))

    full_B = count >= state.limit_B
    longest_BK = live_BK / length_divisor(state.limit_B, penalty)[:, None]  # the most that a live one can still score
    beams = _keep_best(beams, state.done_B | ~full_B, longest_BK, tokens_BKT)
    done_B = state.done_B | full_B | (beams.ended_B >= streams) | (beams.best_B >= jnp.max(longest_BK, axis=1))
    return state.replace(
        count=count,
        tokens_BKT=tokens_BKT,
        done_B=done_B,
        visible_BKS=followed(chosen_BK, state.visible_BKS),
        beams=beams,
    )


def _places(x_BK: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(x_BK.shape[1]), x_BK.shape)


def _candidates(live_BK: jax.Array, logits_BKV: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `count` most likely continuations an image: log probabilities, their streams and tokens, [B, count] each."""
    # First the best of each stream: a sort of K * V values would cost more. By the logits, whose sums with log
    # probabilities round and so may tie: one beam is to choose as greedy does, to the last bit.
    batch, streams, vocabulary = logits_BKV.shape
    each = min(count, vocabulary)
    logits_BKC, token_BKC = jax.lax.top_k(logits_BKV, each)
    score_BKC = live_BK[..., None] + (logits_BKC - jax.nn.logsumexp(logits_BKV, axis=-1, keepdims=True))
    score_BC, place_BC = jax.lax.top_k(score_BKC.reshape(batch, streams * each), count)
    token_BC = jnp.take_along_axis(token_BKC.reshape(batch, streams * each), place_BC, axis=1)
    return score_BC, place_BC // each, token_BC


def _keep_best(beams: Beams, frozen_B: jax.Array, score_BN: jax.Array, tokens_BNT: jax.Array) -> Beams:
    """With the best of N further hypotheses, where it scores higher than the best so far."""
    index_B1 = jnp.argmax(score_BN, axis=1)[:, None]
    score_B = jnp.take_along_axis(score_BN, index_B1, axis=1)[:, 0]
    tokens_BT = jnp.take_along_axis(tokens_BNT, index_B1[..., None], axis=1)[:, 0]
    better_B = (score_B > beams.best_B) & ~frozen_B
    return beams.replace(
        best_B=jnp.where(better_B, score_B, beams.best_B),
        best_tokens_BT=jnp.where(better_B[:, None], tokens_BT, beams.best_tokens_BT),
    )
