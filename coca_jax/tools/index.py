"""Makes the indices of a config's shards, so that a run opens them at once.

    python -m coca_jax.tools index --config=configs/x.py --workers=16

A run would make them at its first start, on one machine's threads. They are kept beside the shards or, where that folder
is not writable, in the cache folder (COCA_CACHE). Prints the number of records and the damage.
"""

import concurrent.futures
import functools
import logging
import multiprocessing
from collections.abc import Callable
from typing import Any

from absl import flags

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.records import shard_files
from coca_jax.data.records.formats import tar, tfrecord
from coca_jax.data.records.open import SPLITS, open_records
from coca_jax.data.records.selection import Selection
from coca_jax.errors import CocaError
from coca_jax.storage.files import File
from coca_jax.tools.common import progress

_KINDS: dict[str, Any] = {"tars": tar, "tfrecords": tfrecord}  # formats whose files hold no index of their own
_log = logging.getLogger(__name__)


def build_indices(name: str, dataset: DatasetConfig, *, workers: int = 1, beside: bool = True) -> dict[str, str]:
    """Indexes the tars or TFRecord files of a dataset that have no index yet, by `workers` processes.

    `beside` keeps new indices beside shards in a bucket, too. Returns the reason for each shard that cannot be indexed.
    """
    selection = Selection(files=(*dataset.train_files, *dataset.evaluation_files))
    files = shard_files.find_shards(dataset, selection)
    work = functools.partial(_index, dataset.format, dataset.image_field, beside)
    # Processes, because reading headers holds the interpreter's lock; new ones, because this one has threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(files)), mp_context=context) as pool:
        results = pool.map(work, files, chunksize=4) if workers > 1 else map(work, files)
        errors = list(progress(results, name, len(files), "shard"))
    return {file.path: error for file, error in zip(files, errors, strict=True) if error}


def _index(format: str, image_field: str, beside: bool, file: File) -> str:
    """The error of indexing a shard, or ""."""
    try:
        _KINDS[format].index(file, image_field, beside)
    except CocaError as error:
        return str(error)
    return ""


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    workers = flags.DEFINE_integer("workers", 4, "Processes that index shards.", 1, flag_values=values)
    beside = flags.DEFINE_bool("beside", True, "Keep a bucket's indices there, not in the cache.", flag_values=values)

    def run(config: Config) -> None:
        errors: dict[str, str] = {}
        for name, source in config.data.sources.items():
            dataset = source.dataset
            if dataset.format == "digit_scenes":
                print(f"{name}: digit_scenes, made by index: nothing to do")
                continue
            if dataset.format in _KINDS:
                errors |= build_indices(name, dataset, workers=workers.value, beside=beside.value)
            if not errors:
                for split in SPLITS if dataset.holds_out else SPLITS[:1]:
                    store = open_records(dataset, split)
                    lost = (f"; {cause}: {count:,}" for cause, count in sorted(store.census.damage.items()))
                    print(f"{name}, {split}: {len(store):,} records{''.join(lost)}")
        for error in list(errors.values())[1:]:
            _log.warning("%s", error)
        if errors:
            raise CocaError(next(iter(errors.values())))

    return run
