"""Parts of several commands: a config's records, work over blocks of them in threads, progress."""

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

import tqdm

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import RecordStore
from coca_jax.errors import CocaError

_log = logging.getLogger(__name__)
_LOG_EVERY = 30.0  # seconds between lines of progress where there is no terminal
_BLOCK = 64  # records read together

A = TypeVar("A")
B = TypeVar("B")


def open_datasets(
    config: Config, split: str, command: str, *, excluded: bool = False
) -> dict[str, tuple[DatasetConfig, RecordStore]]:
    """The config's datasets by name, and a split of their records; digit_scenes, which has none, is left out.

    `excluded` opens the records that exclude_keys leaves out, too. Raises CocaError, which names the command, if records
    do not exist, or all datasets are digit_scenes.
    """
    datasets = {}
    for name, source in config.data.sources.items():
        if source.dataset.format != "digit_scenes":
            dataset = dataclasses.replace(source.dataset, exclude_keys="") if excluded else source.dataset
            datasets[name] = dataset, open_records(dataset, split)
    if not datasets:
        raise CocaError(f"{command} needs records, and digit_scenes has none: name a config with files")
    return datasets


def evenly_spread(count: int, sample: int) -> Sequence[int]:
    """`sample` of the numbers below `count`, evenly spread; all of them if `sample` is 0 or larger."""
    if not sample or sample >= count:
        return range(count)
    return [(number * count + count // 2) // sample for number in range(sample)]


def in_blocks(
    work: Callable[[list[int]], B], indices: Sequence[int], workers: int, label: str, unit: str = "record"
) -> Iterator[B]:
    """The results of `work` for blocks of neighbouring indices, in order, by threads, a few ahead; shows progress."""
    starts = range(0, len(indices), _BLOCK)
    with futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[futures.Future[B]] = collections.deque()
        for start in progress(starts, label, len(starts), unit, _BLOCK):
            waiting.append(pool.submit(work, list(indices[start : start + _BLOCK])))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def progress(items: Iterable[A], label: str, total: int, unit: str = "record", scale: int = 1) -> Iterator[A]:
    """The items, with a bar on a terminal, and a logged line now and then elsewhere; each counts `scale` units."""
    bar = tqdm.tqdm(
        items, desc=label, total=total, unit=unit, unit_scale=scale, dynamic_ncols=True, disable=None, leave=False
    )
    logged = time.monotonic()
    for done, item in enumerate(bar, 1):
        yield item
        if bar.disable and time.monotonic() - logged > _LOG_EVERY:
            logged = time.monotonic()
            _log.info("%s: %s of %s %ss", label, f"{done * scale:,}", f"{total * scale:,}", unit)
