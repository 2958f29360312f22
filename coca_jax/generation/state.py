"""The state of the loop over tokens.

Letters besides those of `models/layers.py`: P positions of the prompt, K streams (texts that are generated side by side
for one image: the beams, or a single one), T generated tokens, S slots of the cache, C candidates.
"""

import dataclasses

import jax
from flax import struct

from coca_jax.models.text_decoder import DecoderCache


@struct.dataclass
class Beams:
    """The state of a beam search."""

    live_BK: jax.Array  # log probability of each stream's generated tokens; -inf for a stream that does not exist yet
    best_B: jax.Array  # the highest score of an ended hypothesis; -inf before the first has ended
    best_tokens_BT: jax.Array  # of that hypothesis
    ended_B: jax.Array  # number of ended hypotheses


@struct.dataclass
class State:
    """The state of generation.

    Slots 0 to P - 1 of the cache hold the prompt, each later token of all K streams takes K slots. Beams share slots: one
    that continues another's past sees that one's slots, and no cache is ever moved.
    """

    count: jax.Array  # number of tokens that each stream has generated, int32 scalar
    limit_B: jax.Array  # the maximum of that number
    tokens_BKT: jax.Array  # those tokens, then pads; pads after EOS
    done_B: jax.Array  # whether the image's text is complete
    visible_BKS: jax.Array  # the slots that hold a stream's past
    cache: DecoderCache | None
    beams: Beams | None = None


@dataclasses.dataclass(frozen=True)
class Special:
    """The vocabulary's special ids."""

    bos_id: int
    eos_id: int
    pad_id: int
