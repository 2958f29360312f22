"""The texts that a vocabulary is trained on."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text.captions import Texts

_SCENES = 1_000  # they hold every word of the scenes' language many times
_MOST_CAPTIONS = 1_000_000
_THREADS = 16  # that read: most of the time a disk or a network is waited for
_GROUP = 32  # records that a thread reads at a time


def training_captions(config: Config) -> Iterator[str]:
    """Texts of the training records of `config.data`: at most a million, an equal part of each source.

    Captions come all, as training cleans them; where texts are made from labels, each record gives one, in a prompt drawn
    at random. No picture is decoded.

    Raises:
      CocaError: the records cannot be found.
    """
    sources = config.data.sources
    for source in sources.values():
        yield from (
            _of_scenes() if source.format == "digit_scenes" else _of_store(source, _MOST_CAPTIONS // len(sources))
        )


def _of_scenes() -> Iterator[str]:
    for index in range(_SCENES):
        yield from digit_scenes.phrasings(digit_scenes.scene(index, "train"))


def _of_store(source: DatasetConfig, most: int) -> Iterator[str]:
    store = records.open_records(source, "train")
    texts = Texts(source, store)

    def texts_of(indices: Sequence[int]) -> list[str]:
        found: list[str] = []
        for index, record in zip(indices, store.read_texts(indices), strict=True):
            with contextlib.suppress(BadRecord):  # the pipeline counts and names it
                if isinstance(record, BadRecord):
                    continue
                if source.label_field:
                    found.append(texts.draw_of((), record.metadata, np.random.default_rng(index)))
                else:
                    found += texts.all_of(record.captions, {})
        return found

    indices = range(0, len(store), -(-len(store) // most))
    groups = [indices[first : first + _GROUP] for first in range(0, len(indices), _GROUP)]
    said = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(groups), _THREADS):  # no more at a time: of many captions a few records are enough
            for found in pool.map(texts_of, groups[first : first + _THREADS]):
                yield from found[: most - said]
                said += len(found)
                if said >= most:
                    return
