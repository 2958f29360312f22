"""Exact search for 64-bit hashes within a Hamming distance, by bands (multi-index hashing, arXiv 1307.2982).

A hash is cut into four bands of 16 bits. Two hashes that differ in at most d bits agree in some band up to d // 4 bits,
so only entries that share such a band are compared in full: nothing within the distance is missed.
"""

import itertools

import numpy as np

_BANDS, _WIDTH = 4, 16
_CANDIDATES = 1 << 20  # compared at a time
FARTHEST = 15  # beyond it a band need agree in 12 bits only, and most pictures of a large set would be compared


class HammingIndex:
    """Entries to be found by nearness."""

    def __init__(self, entries: np.ndarray, distance: int):
        """Sorts the entries, uint64 [m], by each band.

        Args:
          entries: may hold one hash several times.
          distance: bits that may differ, 0 to `FARTHEST`.
        """
        if not 0 <= distance <= FARTHEST:
            raise ValueError(f"a distance of {distance} bits does not lie in 0..{FARTHEST}")
        self._entries, self._distance = entries, distance
        self._orders, self._starts = [], []
        for band in range(_BANDS):
            values = _band(entries, band)
            order = np.argsort(values, kind="stable")
            self._orders.append(order.astype(np.int32) if len(order) < 2**31 else order)
            self._starts.append(np.searchsorted(values[order], np.arange((1 << _WIDTH) + 1)))
        sizes = range(distance // _BANDS + 1)
        flips = [bits for size in sizes for bits in itertools.combinations(range(_WIDTH), size)]
        self._flips = np.array([sum(1 << bit for bit in bits) for bits in flips], np.int64)

    def near(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Everything within the distance of queries, uint64 [q].

        Returns:
          Numbers of queries, numbers of entries, distances, each [pairs], sorted by query and entry; no pair twice.
        """
        found = [part for band in range(_BANDS) for part in self._in_band(queries, band)]
        if not found:
            return (np.zeros(0, np.int64),) * 3
        pairs = np.unique(np.concatenate(found, axis=1), axis=1)
        return pairs[0], pairs[1], pairs[2]

    def _in_band(self, queries: np.ndarray, band: int):
        starts, order = self._starts[band], self._orders[band]
        probes = _band(queries, band)[:, None] ^ self._flips  # [q, flips]
        first, last = starts[probes], starts[probes + 1]
        totals = np.cumsum((last - first).sum(axis=1))
        for group in _groups(totals, _CANDIDATES):
            counts = (last - first)[group].reshape(-1)
            owner = np.repeat(np.repeat(np.arange(len(queries))[group], probes.shape[1]), counts)
            # 0, 1, … within each run of candidates, plus where the run begins in the band's order.
            inner = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            entry = order[np.repeat(first[group].reshape(-1), counts) + inner]
            distance = np.bitwise_count(queries[owner] ^ self._entries[entry]).astype(np.int64)
            near = distance <= self._distance
            yield np.stack([owner[near], entry[near], distance[near]])


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
    return ((hashes >> np.uint64(band * _WIDTH)) & np.uint64((1 << _WIDTH) - 1)).astype(np.int64)


def _groups(totals: np.ndarray, most: int):
    """Slices of neighbouring queries whose candidates, counted up in `totals`, are about `most` at a time."""
    start = 0
    while start < len(totals):
        before = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + most, side="right")))
        yield slice(start, stop)
        start = stop
