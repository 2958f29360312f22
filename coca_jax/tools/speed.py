"""Measures how fast a config's data come, stage by stage.

    python -m coca_jax.tools speed --config=configs/x.py --seconds=5

read: encoded records, data.block neighbours at a time, from random places. view: decoding, cropping, augmenting, on one
core, of records in memory. tokenise: the same for texts. pipeline: everything, as training asks for it. transfer: a
finished batch to the device. "a core" is what one core would do alone: records by seconds of processor time.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.errors import CocaError
from coca_jax.tools import sets

_KEPT = 256  # records held in memory for the stages after reading
_ROWS = 256  # of a batch that the pipeline makes, at most
_TEXTS = 64  # tokenised at a time


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage did.

    Attributes:
      name: of the stage, and of its set.
      records, bytes: worked through; bytes of what it takes in, or for whole batches of what comes out.
      seconds: of the clock; core_seconds: of all this process' threads together.
    """

    name: str
    records: int
    bytes: int
    seconds: float
    core_seconds: float


def measure(config: Config, vocabulary: Vocabulary, seconds: float) -> Iterator[Stage]:
    """Each stage, for about `seconds`.

    Raises:
      CocaError: records cannot be found or read.
    """
    size, length = config.model.image.size, config.model.text.length
    for name, source in config.data.sources.items():
        if source.format == "digit_scenes":
            continue
        store = records.open_records(source, records.SPLITS[0])
        kept: list[Record] = []
        yield _timed(f"read {name}", seconds, _reading(store, config.data.block, kept))
        kept = _usable(kept, source, size)
        if not kept:
            raise CocaError(
                f"none of the records of {source.path} that were tried can be read: see python -m coca_jax.data stats"
            )
        yield _timed(f"view {name}", seconds, _viewing(kept, source, size))
        texts = Texts(source, store)
        yield _timed(f"tokenise {name}", seconds, _tokenising(kept, texts, vocabulary, length))
    yield from _batches(config, vocabulary, seconds)


def _timed(name: str, seconds: float, work: Iterator[tuple[int, int]]) -> Stage:
    """Takes (records, bytes) from `work` until the time is up."""
    count = size = 0
    start, core_start = time.perf_counter(), time.process_time()
    for more, more_bytes in work:
        count, size = count + more, size + more_bytes
        if time.perf_counter() - start >= seconds:
            break
    return Stage(name, count, size, time.perf_counter() - start, time.process_time() - core_start)


def _reading(store: RecordStore, block: int, kept: list[Record]) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    while True:
        first = int(rng.integers(max(1, len(store) - block + 1)))
        found = [
            record
            for record in store.read(list(range(first, min(first + block, len(store)))))
            if isinstance(record, Record)
        ]
        kept += found[: _KEPT - len(kept)]
        yield len(found), sum(len(record.image) for record in found)


def _usable(kept: list[Record], source: DatasetConfig, size: int) -> list[Record]:
    good = []
    for record in kept:
        try:
            views.view(record.image, size, source, None)
        except BadRecord:
            continue
        good.append(record)
    return good


def _viewing(kept: list[Record], source: DatasetConfig, size: int) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    for record in itertools.cycle(kept):
        views.view(record.image, size, source, rng)
        yield 1, len(record.image)


def _tokenising(kept: list[Record], texts: Texts, vocabulary: Vocabulary, length: int) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    for start in itertools.count(0, _TEXTS):
        said = []
        for record in (kept[i % len(kept)] for i in range(start, start + _TEXTS)):
            try:
                said.append(texts.draw(record, rng))
            except BadRecord:
                continue
        vocabulary.encode(said, length, "truncate")
        yield len(said), sum(len(text.encode()) for text in said)


def _batches(config: Config, vocabulary: Vocabulary, seconds: float) -> Iterator[Stage]:
    """The whole pipeline on some rows of each batch, and the way to the device."""
    import jax

    from coca_jax.data.pipeline.batches import Pipeline  # tensorflow takes seconds to import

    rows = range(min(_ROWS, config.train.batch_size))
    batches = Pipeline(config, vocabulary, rows=rows).iterate()
    last = next(batches)  # the first one pays for the start

    def made() -> Iterator[tuple[int, int]]:
        nonlocal last
        for last in batches:
            yield len(rows), _size(last)

    yield _timed("pipeline", seconds, made())

    def sent() -> Iterator[tuple[int, int]]:
        while True:
            jax.block_until_ready(jax.device_put(last))
            yield len(rows), _size(last)

    next(sent())
    yield _timed(f"transfer to {jax.devices()[0].platform}", min(seconds, 1.0), sent())


def _size(batch: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in batch.values())


def as_dict(stages: list[Stage]) -> dict[str, dict[str, float]]:
    """The same for `json.dumps`: rates by stage."""
    return {
        stage.name: dict(
            records_per_second=stage.records / stage.seconds,
            bytes_per_second=stage.bytes / stage.seconds,
            records_per_second_per_core=stage.records / max(stage.core_seconds, 1e-9),
            records=stage.records,
            seconds=stage.seconds,
            core_seconds=stage.core_seconds,
        )
        for stage in stages
    }


def table(stages: list[Stage]) -> str:
    rows = [("stage", "records/s", "MB/s", "records/s a core", "cores busy")]
    rows += [
        (
            stage.name,
            f"{stage.records / stage.seconds:,.0f}",
            f"{stage.bytes / stage.seconds / 1e6:,.1f}",
            f"{stage.records / max(stage.core_seconds, 1e-9):,.0f}",
            f"{stage.core_seconds / stage.seconds:.1f}",
        )
        for stage in stages
    ]
    return sets.table(rows)


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; gives what runs it."""
    seconds = flags.DEFINE_float("seconds", 5.0, "Of each stage.", lower_bound=0.0, flag_values=values)
    as_json = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.", flag_values=values)

    def run(config: Config) -> None:
        stages = list(measure(config, sets.vocabulary(config), seconds.value))
        print(json.dumps(as_dict(stages), indent=2) if as_json.value else table(stages))

    return run
