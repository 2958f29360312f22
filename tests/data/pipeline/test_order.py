"""The order visits each record once an epoch, mixes as chance would, and reads neighbours together."""

import itertools

import numpy as np
import pytest

from coca_jax.data.pipeline.order import Order


def epochs(order: Order, number: int) -> np.ndarray:
    return order.indices(np.arange(number * order.count)).reshape(number, order.count)


@pytest.mark.parametrize("count", [1, 2, 3, 40, 257, 1_009, 4_999])
@pytest.mark.parametrize("lanes, block", [(1, 1), (4, 1), (4, 8), (7, 16), (3, 5), (300, 16)])
def test_each_epoch_visits_every_record_once(count, lanes, block):
    found = epochs(Order(count, lanes, block, seed=3), 4)
    assert (np.sort(found, axis=1) == np.arange(count)).all()
    if count > 40:
        assert len({tuple(epoch) for epoch in found}) == 4


def test_plain_orders_are_as_mixed_as_random_ones():
    for count, seed in itertools.product((10, 40, 1_000), (0, 1, 2**31, 2**62)):
        orders = epochs(Order(count, 8, 1, seed), 100)
        assert (orders == np.arange(count)).sum(1).mean() < 2  # one record stays in its place, on average
        assert abs((np.diff(orders, axis=1) == 1).mean() - 1 / count) < 0.05
        assert abs(np.mean([np.corrcoef(order, np.arange(count))[0, 1] for order in orders])) < 0.15


def test_every_record_comes_everywhere():
    places = np.argsort(epochs(Order(1_009, 4, 8, seed=0), 800), axis=1)  # of each record in each epoch
    quarters = np.stack([(places // 253 == quarter).mean(0) for quarter in range(4)])
    assert quarters.min() > 0.17 and quarters.max() < 0.33  # five standard deviations about 0.25


def test_seeds_and_sources_have_orders_of_their_own():
    orders = [
        Order(1_000, 4, block, seed, source).indices(np.arange(1_000))
        for block in (1, 8)
        for seed in (0, 1)
        for source in (0, 1)
    ]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).mean() < 0.01


def test_rows_of_a_batch_come_from_different_blocks():
    order = Order(10_007, 8, 16, seed=5)
    assert order.block == 16
    batches = order.indices(np.arange(8 * 1_200)).reshape(1_200, 8)
    apart = np.abs(np.diff(np.sort(batches, axis=1), axis=1))
    assert apart.min() >= 1 and np.median(apart) > 500  # 10,007 / 9 for eight random ones
    # What a lane reads together are neighbours, also across the store's end, and it uses them one step after another.
    for position in (0, 3, 8 * 100 + 5, 10_007 + 11):
        due = order.ahead(position)
        assert due[0] == position and (np.diff(due) == 8).all()
        ring = np.sort((order.indices(due) - order.indices(due)[0] + 100) % order.count)
        assert np.ptp(ring) < 16
        assert len(due) < 8 or (np.diff(order.indices(due)) == 1).mean() < 0.5  # in an order of their own


def test_a_block_is_read_at_most_twice_an_epoch():
    order = Order(10_007, 8, 16, seed=5)
    reads, known = 0, set()
    for position in range(order.count):
        if position not in known:
            reads += 1
            known.update(order.ahead(position).tolist())
    rest = 10_007 % (8 * 16)
    assert 10_007 // 16 <= reads <= 10_007 // 16 + 8 + rest
    assert known == set(range(10_007))


def test_openings_of_blocks_are_spread_over_the_steps():
    order = Order(100_003, 64, 16, seed=1)
    opened = [sum(len(order.ahead(step * 64 + lane)) == 16 for lane in range(64)) for step in range(1, 100)]
    assert set(opened) == {4}


def test_blocks_shrink_with_the_store():
    assert [Order(count, 100, 16, 0).block for count in (50, 1_599, 3_200, 16_000, 10**9)] == [1, 1, 2, 10, 16]


def test_far_positions_cost_nothing_and_none_is_shuffled_without_a_seed():
    order = Order(10**12 + 39, 65_536, 16, seed=0)
    found = order.indices(np.array([0, 10**15, 10**18]))
    assert ((found >= 0) & (found < order.count)).all()
    plain = Order(7, 3, 16, None)
    assert plain.indices(np.arange(16)).tolist() == [i % 7 for i in range(16)]
    assert plain.ahead(5).tolist() == [5]
