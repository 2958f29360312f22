"""What the loop over tokens carries.

Letters besides those of `models/layers.py`: P positions of the prompt, K streams (texts that are generated side by side
for one image: the beams, or one), T generated tokens, S slots of the cache, C candidates.
"""

import dataclasses

import jax
from flax import struct

from coca_jax.models.cache import DecoderCache


@struct.dataclass
class Beams:
    """The state of a beam search.

    Attributes:
      live_BK: log probability of each stream, of its generated tokens; -inf where there is none.
      best_B: the highest score among the hypotheses that have ended; -inf where none has.
      best_tokens_BT: that hypothesis.
      ended_B: how many have ended.
    """

    live_BK: jax.Array
    best_B: jax.Array
    best_tokens_BT: jax.Array
    ended_B: jax.Array


@struct.dataclass
class State:
    """The state of generation.

    Attributes:
      count: tokens that each stream has generated so far, int32 scalar.
      limit_B: the most that it may.
      tokens_BKT: those tokens; pads where there is none yet, and after EOS.
      done_B: whether nothing more is to be generated for the image.
      visible_BKS: the slots that hold a stream's own past. Beams share slots: one that goes on from another's past sees
        that other's slots, and no cache is ever moved.
      cache: keys and values; slots 0 to P - 1 hold the prompt, each later token of all K streams takes K slots.
      beams: of a beam search.
    """

    count: jax.Array
    limit_B: jax.Array
    tokens_BKT: jax.Array
    done_B: jax.Array
    visible_BKS: jax.Array
    cache: DecoderCache
    beams: Beams | None = None


@dataclasses.dataclass(frozen=True)
class Special:
    """The vocabulary's special ids."""

    bos_id: int
    eos_id: int
    pad_id: int
