"""Measures how fast a config's data come, stage by stage.

    python -m coca_jax.tools speed --config=configs/x.py --seconds=5

read: encoded records, data.block neighbours at a time, from random places. view: decoding, cropping, augmenting, on one
core, of records in memory. tokenise: the same for texts. pipeline: everything, as in training. transfer: a finished
batch to the device. "a core" is the rate of one core alone: records by seconds of processor time.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from absl import flags

from coca_jax.config import Config, ModelConfig, SourceConfig
from coca_jax.data.images.inputs import decode_input
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records.open import SPLITS, open_records
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.corpus import load_vocabulary
from coca_jax.data.text.vocabulary import Vocabulary
from coca_jax.errors import CocaError
from coca_jax.pages.terminal import text_table

_RECORDS = 256  # held in memory for the stages after reading
_ROWS = 256  # of a batch that the pipeline makes, at most
_TEXTS = 64  # tokenised at a time


Rates = dict[str, float]


def measure(config: Config, vocabulary: Vocabulary, seconds: float) -> dict[str, Rates]:
    """Runs each stage for about `seconds`.

    Returns:
      Rates by stage. Bytes are those of a stage's input, or for whole batches of its output.

    Raises:
      CocaError: records do not exist or cannot be read.
    """
    stages: dict[str, Rates] = {}
    for name, source in config.data.sources.items():
        if source.dataset.format == "digit_scenes":
            continue
        store = open_records(source.dataset, SPLITS[0])
        texts = Texts(source.dataset, store)
        records: list[Record] = []
        stages[f"read {name}"] = _timed(seconds, _read(store, config.data.block, records))
        records = [record for record in records if _is_usable(record, texts, source, config.model)]
        if not records:
            raise CocaError(
                f"none of the records of {source.dataset.path} that were tried can be read: see python -m "
                "coca_jax.tools stats"
            )
        stages[f"view {name}"] = _timed(seconds, _view(records, source, config.model))
        stages[f"tokenise {name}"] = _timed(seconds, _tokenise(records, texts, vocabulary, config.model.text.length))
    return stages | _batches(config, vocabulary, seconds)


def _timed(seconds: float, work: Iterator[tuple[int, int]]) -> Rates:
    """Takes (records, bytes) from `work` until the time is up."""
    records = size = 0
    start, core_start = time.perf_counter(), time.process_time()
    for more, more_bytes in work:
        records, size = records + more, size + more_bytes
        if time.perf_counter() - start >= seconds:
            break
    elapsed, cores = time.perf_counter() - start, max(time.process_time() - core_start, 1e-9)  # of all threads
    return {
        "records_per_second": records / elapsed,
        "bytes_per_second": size / elapsed,
        "records_per_second_per_core": records / cores,
        "cores_busy": cores / elapsed,
        "records": records,
        "seconds": elapsed,
    }


def _read(store: RecordStore, block: int, records: list[Record]) -> Iterator[tuple[int, int]]:
    """Reads blocks at random places; the first records are appended to `records`."""
    rng = np.random.default_rng(0)
    while True:
        first = int(rng.integers(max(1, len(store) - block + 1)))
        results = store.read(list(range(first, min(first + block, len(store)))))
        good = [record for record in results if isinstance(record, Record)]
        records += good[: _RECORDS - len(records)]
        yield len(good), sum(len(record.image) for record in good)


def _is_usable(record: Record, texts: Texts, source: SourceConfig, model: ModelConfig) -> bool:
    try:
        texts.all(record)
        decode_input(record.image, model, source.dataset)
    except BadRecord:
        return False
    return True


def _view(records: list[Record], source: SourceConfig, model: ModelConfig) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    for record in itertools.cycle(records):
        decode_input(record.image, model, source.dataset, rng, source.augmentation)
        yield 1, len(record.image)


def _tokenise(records: list[Record], texts: Texts, vocabulary: Vocabulary, length: int) -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(0)
    endless = itertools.cycle(records)
    while True:
        drawn = [texts.draw(record, rng) for record in itertools.islice(endless, _TEXTS)]
        vocabulary.encode(drawn, length, "truncate")
        yield len(drawn), sum(len(text.encode()) for text in drawn)


def _batches(config: Config, vocabulary: Vocabulary, seconds: float) -> dict[str, Rates]:
    """The whole pipeline on some rows of each batch, and the way to the device."""
    rows = range(min(_ROWS, config.train.batch_size))
    batches = Pipeline(config, vocabulary, rows=rows).iterate()
    last = next(batches)  # the first one pays for the start
    counts = len(rows), sum(array.nbytes for array in last.values())

    def send() -> Iterator[tuple[int, int]]:
        while True:
            jax.block_until_ready(jax.device_put(last))
            yield counts

    next(send())
    return {
        "pipeline": _timed(seconds, (counts for _ in batches)),
        f"transfer to {jax.devices()[0].platform}": _timed(min(seconds, 1.0), send()),
    }


def as_text(stages: dict[str, Rates]) -> str:
    """A table of the rates."""
    rows: list[Sequence[str]] = [("stage", "records/s", "MB/s", "records/s a core", "cores busy")]
    for name, rates in stages.items():
        rate, megabytes = f"{rates['records_per_second']:,.0f}", f"{rates['bytes_per_second'] / 1e6:,.1f}"
        rows.append(
            (name, rate, megabytes, f"{rates['records_per_second_per_core']:,.0f}", f"{rates['cores_busy']:.1f}")
        )
    return text_table(rows)


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    seconds = flags.DEFINE_float("seconds", 5.0, "Of each stage.", lower_bound=0.0, flag_values=values)
    as_json = flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.", flag_values=values)

    def run(config: Config) -> None:
        stages = measure(config, load_vocabulary(config), seconds.value)
        print(json.dumps(stages, indent=2) if as_json.value else as_text(stages))

    return run
