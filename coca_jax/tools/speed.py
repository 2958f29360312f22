"""Measures how fast a config's data come, stage by stage.

    python -m coca_jax.tools speed --config=configs/x.py --seconds=5

read: encoded records, data.block neighbours at a time, from random places. view: decoding, cropping, augmenting, on one
core, of records in memory. tokenise: the same for texts. pipeline: everything, as in training. transfer: a finished
batch to the device. "a core" is the rate of one core alone: records by seconds of processor time.
"""

import itertools
import json
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from coca_jax.config import Config, SourceConfig
from coca_jax.data.images.inputs import decode_input
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records.open import SPLITS, open_records
from coca_jax.data.records.record import BadRecord, Record
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
    """Rates by stage, each of which runs for about `seconds`; raises CocaError if records cannot be read.

    Bytes are those of a stage's input, or for whole batches of its output.
    """
    stages: dict[str, Rates] = {}
    for name, source in config.data.sources.items():
        if source.dataset.format != "digit_scenes":
            stages |= _of_source(name, source, config, vocabulary, seconds)
    return stages | _of_batches(config, vocabulary, seconds)


def _timed(seconds: float, work: Callable[[], tuple[int, int]]) -> Rates:
    """Calls `work`, which returns numbers of records and bytes, until the time is up."""
    records = size = 0
    start, core_start = time.perf_counter(), time.process_time()
    elapsed = -1.0
    while elapsed < seconds:
        more, more_bytes = work()
        records, size = records + more, size + more_bytes
        elapsed = time.perf_counter() - start
    cores = max(time.process_time() - core_start, 1e-9)  # of all threads
    return {
        "records_per_second": records / elapsed,
        "bytes_per_second": size / elapsed,
        "records_per_second_per_core": records / cores,
        "cores_busy": cores / elapsed,
        "records": records,
        "seconds": elapsed,
    }


def _of_source(
    name: str, source: SourceConfig, config: Config, vocabulary: Vocabulary, seconds: float
) -> dict[str, Rates]:
    """Reading blocks at random places; then the views and the texts of the first records in turn."""
    store, block = open_records(source.dataset, SPLITS[0]), config.data.block
    texts, rng = Texts(source.dataset, store), np.random.default_rng(0)
    records: list[Record] = []

    def read() -> tuple[int, int]:
        first = int(rng.integers(max(1, len(store) - block + 1)))
        results = store.read(list(range(first, min(first + block, len(store)))))
        good = [record for record in results if isinstance(record, Record)]
        records.extend(good[: _RECORDS - len(records)])
        return len(good), sum(len(record.image) for record in good)

    def view() -> tuple[int, int]:
        record = next(endless)
        decode_input(record.image, config.model, source.dataset, rng, source.augmentation)
        return 1, len(record.image)

    def tokenise() -> tuple[int, int]:
        drawn = [texts.draw(record, rng) for record in itertools.islice(endless, _TEXTS)]
        vocabulary.encode(drawn, config.model.text.length, "truncate")
        return len(drawn), sum(len(text.encode()) for text in drawn)

    def is_usable(record: Record) -> bool:
        try:
            texts.all(record)
            decode_input(record.image, config.model, source.dataset)
        except BadRecord:
            return False
        return True

    reading = _timed(seconds, read)
    usable = list(filter(is_usable, records))
    if not usable:
        raise CocaError(f"the records of {source.dataset.path} cannot be read: see python -m coca_jax.tools stats")
    endless = itertools.cycle(usable)
    viewing, tokenising = _timed(seconds, view), _timed(seconds, tokenise)
    return {f"read {name}": reading, f"view {name}": viewing, f"tokenise {name}": tokenising}


def _of_batches(config: Config, vocabulary: Vocabulary, seconds: float) -> dict[str, Rates]:
    """The whole pipeline on some rows of each batch, and the way to the device."""
    rows = range(min(_ROWS, config.train.batch_size))
    batches = Pipeline(config, vocabulary, rows=rows).iterate()
    last = next(batches)  # the first one pays for the start

    def make() -> tuple[int, int]:
        return len(rows), sum(array.nbytes for array in next(batches).values())

    def send() -> tuple[int, int]:
        jax.block_until_ready(jax.device_put(last))
        return len(rows), sum(array.nbytes for array in last.values())

    send()
    making, sending = _timed(seconds, make), _timed(min(seconds, 1.0), send)
    return {"pipeline": making, f"transfer to {jax.devices()[0].platform}": sending}


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
