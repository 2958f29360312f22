"""The order of training: from a position to a record's index, without state and in constant time.

Position p of a source lies in epoch p // N of its N records, at place q = p % N; each epoch visits each record once.
With L lanes (the source's rows of a batch) and blocks of b neighbouring records, an epoch is arranged so:

- The store is a ring, cut at a place of the epoch's own, so that other neighbours share a block in each epoch. From
  there on G·L blocks follow each other, G = N // (L·b); the rest, fewer than L·b records, comes last, permuted record
  by record.
- Place q belongs to lane q % L. A lane reads G blocks, drawn by a random permutation of all blocks, one after another,
  the records of each in an order of its own. Lanes begin at different places within their first block (and end with
  the part before it), so that at each step a b-th of them opens a new one, and reading is spread evenly over the steps.

The randomness: the rows of a batch come from L blocks drawn at random from the whole store; two records of
a block never meet in a batch (but for the first steps and the last of an epoch), and come at most b steps apart. Where a
lane would get fewer than 16 blocks, b is made smaller, down to 1: then an epoch is a plain permutation. So a row reads b
neighbours at once and uses them in b steps, and however many hosts share the batch, each record is read by one of them.
The evaluation's order is the store's.
"""

import numpy as np

_BLOCKS_A_LANE = 16  # fewer, and an epoch's batches would resemble each other
_ROUNDS = 8
_ONE = np.uint64(1)


class Order:
    """The order of one source's records, of which `block` neighbours are read together."""

    def __init__(self, count: int, lanes: int, block: int, seed: int | None, source: int = 0):
        """An order of `count` (at least 1) records.

        Args:
          lanes: positions a step.
          block: neighbours that a lane reads together, at most.
          seed: of all permutations; None: the store's own order, over and over.
          source: sources of other numbers are ordered independently.
        """
        self.count, self.lanes = count, lanes
        self.block = max(1, min(block, count // (_BLOCKS_A_LANE * lanes))) if seed is not None else 1
        self._groups = count // (lanes * self.block)
        self._key = None if seed is None else _mixed(np.uint64(seed % 2**64), np.uint64(source))

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The records at positions [n] (from 0): int64 [n]."""
        epoch, place = np.divmod(np.asarray(positions, np.int64), self.count)
        if self._key is None:
            return place
        key = _mixed(self._key, epoch.astype(np.uint64))
        if self.block == 1:
            return _permuted(place, self.count, key)
        blocks = self._groups * self.lanes
        whole = blocks * self.block
        tick, lane = self._ticks(place)
        turn = np.minimum(tick // self.block * self.lanes + lane, blocks - 1)
        number = _permuted(turn, blocks, _mixed(key, np.uint64(1)))
        inner = _permuted(tick % self.block, self.block, _mixed(key, np.uint64(2), number.astype(np.uint64)))
        rest = self.count - whole
        single = _permuted(np.maximum(place - whole, 0), max(rest, 1), _mixed(key, np.uint64(3)))
        cut = (_mixed(key, np.uint64(4)) % np.uint64(self.count)).astype(np.int64)
        return (cut + np.where(place < whole, number * self.block + inner, whole + single)) % self.count

    def ahead(self, position: int) -> np.ndarray:
        """The positions, this one first, at which its lane uses the rest of its block: int64 [n], n <= block."""
        place = position % self.count
        left = 1
        if self.block > 1 and place < self._groups * self.lanes * self.block:
            tick = int(self._ticks(np.int64(place))[0])
            left = min(self.block - tick % self.block, self._groups * self.block - place // self.lanes)
        return position + self.lanes * np.arange(left, dtype=np.int64)

    def _ticks(self, place: np.ndarray | np.int64) -> tuple[np.ndarray, np.ndarray]:
        """The lane of each place, after how far on the ring of its G·b records the lane is there."""
        turn, lane = np.divmod(place, self.lanes)
        return (turn + lane % self.block) % (self._groups * self.block), lane


def _mixed(*words: np.ndarray | np.uint64) -> np.ndarray:
    """64 bits that depend on every word."""
    state = np.zeros(np.broadcast_shapes(*(np.shape(word) for word in words)), np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        for word in words:
            state = _finalized((state ^ word) + np.uint64(0x9E3779B97F4A7C15))
    return state


def _finalized(state: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: each bit of the result depends on each bit of `state`."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _permuted(index: np.ndarray, count: int, key: np.ndarray) -> np.ndarray:
    """A permutation of range(count) for each key, at index [n] with keys [n]: int64 [n].

    A Feistel network over the next power of two, walked on until it is back within range(count).
    """
    bits = max(2, (count - 1).bit_length())
    sizes = (np.uint64(bits // 2), np.uint64(bits - bits // 2))  # of the lower half and the upper one
    keys = _mixed(key, np.arange(_ROUNDS, dtype=np.uint64)[:, None])  # [rounds, n]
    result = index.astype(np.uint64)
    todo = np.arange(result.size if count > 1 else 0)
    while todo.size:
        value = result[todo]
        halves = [value & ((_ONE << sizes[0]) - _ONE), value >> sizes[0]]
        for number, chosen in enumerate(keys):
            this, other = number % 2, 1 - number % 2
            halves[this] = halves[this] ^ (_finalized(chosen[todo] ^ halves[other]) >> (np.uint64(64) - sizes[this]))
        result[todo] = halves[1] << sizes[0] | halves[0]
        todo = todo[result[todo] >= count]
    return result.astype(np.int64)
