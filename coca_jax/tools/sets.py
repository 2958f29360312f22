"""What the commands share: a config's sets, samples of them, work in threads, progress, tables."""

import collections
import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records.record import RecordStore
from coca_jax.data.text import corpus
from coca_jax.data.text.vocabulary import Vocabulary, train_vocabulary
from coca_jax.errors import CocaError

_log = logging.getLogger(__name__)
_LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal
BLOCK = 64  # records read at a time

A, B = TypeVar("A"), TypeVar("B")


def stored(config: Config, split: str, command: str, **changes: str) -> dict[str, tuple[DatasetConfig, RecordStore]]:
    """The config's sets by name, with these keys changed, and their records; digit_scenes, which has none, is left out.

    Raises:
      CocaError: records cannot be found, or all sets are digit_scenes.
    """
    found = {}
    for name, source in config.data.sources.items():
        if source.format != "digit_scenes":
            source = dataclasses.replace(source, **changes)
            found[name] = source, records.open_records(source, split)
    if not found:
        raise CocaError(
            f"{command} needs records, and digit_scenes has none (it is made by index, without end): name "
            "a config with files"
        )
    return found


def vocabulary(config: Config) -> Vocabulary:
    """The vocabulary that the config names, or one trained on its captions, as a run without a file has it."""
    if config.data.vocabulary:
        return Vocabulary.from_file(config.data.vocabulary)
    _log.info("data.vocabulary is empty: training one on the captions, as a run's first start does")
    return train_vocabulary(corpus.training_captions(config), config.model.text.vocabulary_size)


def spread(count: int, sample: int) -> np.ndarray:
    """`sample` of the numbers below `count`, evenly spread; all of them where `sample` is 0 or larger: int64 [n]."""
    if not sample or sample >= count:
        return np.arange(count)
    return (np.arange(sample) * count + count // 2) // sample


def blocks(indices: np.ndarray, size: int = BLOCK) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def in_threads(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`function` over the items, in their order, a few of them ahead of who takes the results."""
    if workers == 1:
        yield from map(function, items)
        return
    with futures.ThreadPoolExecutor(workers) as pool:
        ahead: collections.deque[futures.Future] = collections.deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()


@contextlib.contextmanager
def progress(what: str, total: int, unit: str = "record") -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many more are done: a bar on a terminal, a line now and then elsewhere."""
    import tqdm

    with tqdm.tqdm(desc=what, total=total, unit=unit, dynamic_ncols=True, disable=None, leave=False) as bar:
        done, said = 0, time.monotonic()

        def advance(more: int) -> None:
            nonlocal done, said
            done += more
            bar.update(more)
            if bar.disable and time.monotonic() - said > _LINE_EVERY:
                said = time.monotonic()
                _log.info("%s: %s of %s %ss", what, f"{done:,}", f"{total:,}", unit)

        yield advance
    sys.stderr.flush()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other: the first from the left, the others from the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
