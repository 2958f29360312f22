"""Quotas are exact, spread over the batch, and refused where a source would get nothing."""

import numpy as np
import pytest

from coca_jax.data.pipeline import mixture as mixtures
from coca_jax.errors import CocaError


@pytest.mark.parametrize(
    "shares, batch_size, quotas",
    [
        ({"a": 1.0}, 8, (8,)),
        ({"a": 1.0, "b": 1.0}, 8, (4, 4)),
        ({"a": 0.5, "b": 0.5}, 65_536, (32_768, 32_768)),
        ({"a": 2.0, "b": 1.0}, 8, (5, 3)),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, 96, (32, 32, 32)),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, 8, (3, 3, 2)),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, 1_000, (100, 200, 700)),
    ],
)
def test_quotas_by_the_largest_remainder(shares, batch_size, quotas):
    found = mixtures.layout(shares, batch_size)
    assert found.names == tuple(shares) and found.quotas == quotas
    assert np.bincount(found.source).tolist() == list(quotas)
    for number, quota in enumerate(quotas):
        assert found.place[found.source == number].tolist() == list(range(quota))


def test_any_part_of_a_batch_has_its_share_of_each_source():
    found = mixtures.layout({"a": 1.0, "b": 3.0, "c": 12.0}, 256)
    for part in np.split(found.source, 16):
        assert np.bincount(part, minlength=3).tolist() == [1, 3, 12]


def test_a_source_without_rows_is_refused():
    with pytest.raises(CocaError, match=r"data\.mixture\.rare would get none of the 8 rows"):
        mixtures.layout({"common": 100.0, "rare": 1.0}, 8)
