"""Blocks are read once, kept until they are due, and never beyond the limit."""

import itertools
import threading

import numpy as np

from coca_jax.data.pipeline.order import Order
from coca_jax.data.pipeline.read_ahead import Reader
from coca_jax.data.records.record import BadRecord, Record


class Store:
    """Records of 1,000 bytes whose keys are their indices; each 50th is bad."""

    def __init__(self):
        self.calls = []

    def read(self, indices):
        self.calls.append(list(indices))
        return [BadRecord("bad") if i % 50 == 0 else Record(str(i), bytes(1_000), ("x",), {}) for i in indices]


def key(found):
    return None if isinstance(found, BadRecord) else int(found.key)


def read_all(reader, order, positions):
    positions = np.fromiter(positions, np.int64)
    return [key(reader.record(*at)) for at in zip(positions.tolist(), order.indices(positions).tolist(), strict=True)]


def expected(order, positions):
    return [None if i % 50 == 0 else i for i in order.indices(np.fromiter(positions, np.int64)).tolist()]


def test_neighbours_are_read_at_once_and_once():
    store, order = Store(), Order(1_280, 4, 16, seed=0)
    reader = Reader(store, order, 10**9)
    assert read_all(reader, order, range(1_280)) == expected(order, range(1_280))
    assert sorted(itertools.chain(*store.calls)) == list(range(1_280))
    assert len(store.calls) <= 1_280 / 16 + 4
    for call in store.calls:
        assert call == sorted(call) and (call[-1] - call[0] < 16 or call[-1] - call[0] > 1_000)
    assert not reader._cache and reader._bytes == 0


def test_no_more_is_kept_than_the_limit_allows():
    store, order = Store(), Order(1_280, 4, 16, seed=0)
    due = list(zip(range(1_280), order.indices(np.arange(1_280)).tolist(), expected(order, range(1_280)), strict=True))
    for limit in (10_000, 1, 0):
        reader, most = Reader(store, order, limit), 0
        for position, index, known in due:
            assert key(reader.record(position, index)) == known
            most = max(most, reader._bytes)
        assert most <= limit + 15 * 2_000 * bool(limit)


def test_threads_that_overtake_each_other_get_their_own_records():
    store, order = Store(), Order(1_280, 4, 16, seed=0)
    reader, wrong = Reader(store, order, 10**9), []
    due = list(zip(range(1_280), order.indices(np.arange(1_280)).tolist(), expected(order, range(1_280)), strict=True))

    def work(some):
        for position, index, known in some:
            if key(reader.record(position, index)) != known:
                wrong.append(position)

    threads = [threading.Thread(target=work, args=(due[first::3],)) for first in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not reader._cache and reader._bytes == 0


def test_a_record_before_the_last_one_used_is_not_kept():
    store, order = Store(), Order(1_280, 4, 16, seed=0)
    reader = Reader(store, order, 10**9)
    late, early = 20, 8  # of one lane
    assert read_all(reader, order, [late, early]) == expected(order, [late, early])
    assert min(reader._cache) > late
