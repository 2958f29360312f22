"""The shares of a mixture's sources in each batch: exact quotas, spread evenly over the rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from coca_jax.errors import CocaError


class Layout(NamedTuple):
    """The source of each row of a batch, the same for all steps and on all hosts."""

    names: tuple[str, ...]  # of the sources
    quotas: tuple[int, ...]  # rows of each of them in a batch; their sum is the batch size
    source: np.ndarray  # int32 [B], of each row
    place: np.ndarray  # int64 [B], the row's number among its source's: at step n it holds position n * quota + place


def layout(shares: Mapping[str, float], batch_size: int) -> Layout:
    """The layout of batches whose rows are shared out by the largest remainder, in proportion to the sources' shares.

    Raises:
      CocaError: a source would get no row.
    """
    wanted = np.array(list(shares.values()), np.float64)
    wanted *= batch_size / wanted.sum()
    quotas = np.floor(wanted + 1e-9).astype(np.int64)  # a third of 96 is 32, despite rounding
    missing = batch_size - int(quotas.sum())
    quotas[np.argsort(-(wanted - quotas), kind="stable")[:missing]] += 1
    for name, quota in zip(shares, quotas, strict=True):
        if not quota:
            raise CocaError(
                f"data.mixture.{name} would get none of the {batch_size} rows of a batch: raise its share or "
                f"train.batch_size, or leave it out"
            )
    source = np.repeat(np.arange(len(quotas), dtype=np.int32), quotas)
    place = np.concatenate([np.arange(quota) for quota in quotas])
    # Row k of a source with quota n belongs at (k + 1/2) / n of the batch.
    rows = np.argsort((place + 0.5) / quotas[source], kind="stable")
    return Layout(tuple(shares), tuple(quotas.tolist()), source[rows], place[rows])
