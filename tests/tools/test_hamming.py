"""The banded search gives what comparing everything with everything gives."""

import numpy as np
import pytest

from coca_jax.tools import hamming
from coca_jax.tools.hamming import HammingIndex


def flipped(hashes: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    result = hashes.copy()
    for row in range(len(result)):
        for bit in rng.choice(64, bits, replace=False):
            result[row] ^= np.uint64(1) << np.uint64(bit)
    return result


@pytest.mark.parametrize("distance", [0, 3, 4, 8, 15])
def test_nothing_within_the_distance_is_missed_and_nothing_else_is_found(distance, monkeypatch):
    monkeypatch.setattr(hamming, "_CANDIDATES", 50)  # several groups of queries
    rng = np.random.default_rng(distance)
    entries = rng.integers(0, 2**64, 300, np.uint64)
    entries[5:9] = entries[4]  # one hash several times
    queries = np.concatenate([flipped(entries[:40], bits, rng) for bits in (0, distance, distance + 1)])
    found = HammingIndex(entries, distance).near(queries)
    distances = np.bitwise_count(queries[:, None] ^ entries[None]).astype(int)
    expected = np.argwhere(distances <= distance)
    np.testing.assert_array_equal(np.stack(found[:2], axis=1), expected)
    np.testing.assert_array_equal(found[2], distances[tuple(expected.T)])
    assert len(expected) >= 80


def test_an_empty_side_has_no_pairs():
    nothing = np.zeros(0, np.uint64)
    for entries, queries in ((nothing, np.ones(3, np.uint64)), (np.ones(3, np.uint64), nothing)):
        assert [len(part) for part in HammingIndex(entries, 8).near(queries)] == [0, 0, 0]
