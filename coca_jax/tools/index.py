"""Makes the indices of a config's shards, so that a run opens them at once.

    python -m coca_jax.tools index --config=configs/x.py --workers=16

A run would make them at its first start, on one machine's threads; they are kept beside the shards, or where nothing
can be written there, in the cache folder (COCA_CACHE). Prints what was found, and what is damaged.
"""

import concurrent.futures
import functools
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import flags

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.records import index_cache
from coca_jax.data.records import open as records
from coca_jax.data.records.formats import tar as tar_records
from coca_jax.data.records.record import RecordStore
from coca_jax.data.records.selection import Selection
from coca_jax.errors import CocaError
from coca_jax.storage.files import File
from coca_jax.tools import sets

_log = logging.getLogger(__name__)


def build(
    source: DatasetConfig, *, workers: int = 1, beside: bool = True, what: str = "shards"
) -> tuple[int, dict[str, str]]:
    """Indexes all shards of a set of tars that have no index yet, several at a time.

    Args:
      source: the set.
      workers: processes.
      beside: keep new indices beside shards in a bucket, too.
      what: the set's name, for the progress bar.

    Returns:
      How many shards there are, and why each of those that cannot be indexed cannot, by path.
    """
    selection = Selection(files=(*source.train_files, *source.evaluation_files))
    files = index_cache.find_shards(source, selection, lambda name: name.endswith(".tar"), ".tar")
    work = functools.partial(_index, source.image_field, beside)
    broken = {}
    with sets.progress(what, len(files), "shard") as advance:
        for file, error in zip(files, _in_processes(work, files, workers), strict=True):
            if error:
                broken[file.path] = error
            advance(1)
    return len(files), broken


def _index(image_field: str, beside: bool, file: File) -> str:
    try:
        tar_records.index(file, image_field, beside)
        return ""
    except CocaError as error:
        return str(error)


def _in_processes(work: Callable[[File], str], files: Sequence[File], workers: int) -> Iterator[str]:
    if workers == 1:
        yield from map(work, files)
        return
    # Processes, because reading headers holds the interpreter's lock; new ones, because this one has threads.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(files)), mp_context=context) as pool:
        yield from pool.map(work, files, chunksize=4)


def summary(name: str, stores: Mapping[str, RecordStore]) -> str:
    """What a set's splits hold, a line each, and its damage."""
    rows = [(name, "records")] + [(f"  {split}", f"{len(store):,}") for split, store in stores.items()]
    damage: Counter[str] = Counter()
    for store in stores.values():
        damage |= Counter(store.damage)  # both splits may lie in the same shards
    return sets.table(rows + [(f"  lost: {cause}", f"{count:,}") for cause, count in sorted(damage.items())])


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; gives what runs it."""
    workers = flags.DEFINE_integer("workers", 4, "Processes that index tars.", lower_bound=1, flag_values=values)
    beside = flags.DEFINE_bool(
        "beside",
        True,
        "In a bucket, keep the indices beside the shards, for all machines; else in this one's cache.",
        flag_values=values,
    )

    def run(config: Config) -> None:
        broken: dict[str, str] = {}
        for name, source in config.data.sources.items():
            if source.format == "digit_scenes":
                print(f"{name}: digit_scenes, made by index: nothing to do")
                continue
            if source.format == "tars":
                count, errors = build(source, workers=workers.value, beside=beside.value, what=name)
                broken |= errors
                _log.info("%s: %d shards", name, count)
            if not broken:
                splits = records.SPLITS if source.holds_out else records.SPLITS[:1]
                print(summary(name, {split: records.open_records(source, split) for split in splits}))
        for error in list(broken.values())[1:]:
            _log.warning("%s", error)
        if broken:
            raise CocaError(next(iter(broken.values())))

    return run
