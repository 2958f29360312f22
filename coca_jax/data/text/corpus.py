"""A config's vocabulary, and the texts that one is trained on."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from coca_jax.config import Config, DatasetConfig
from coca_jax.data.digit_scenes.language import phrasings
from coca_jax.data.digit_scenes.scenes import words
from coca_jax.data.records import fields
from coca_jax.data.records.open import open_records
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text.captions import Texts
from coca_jax.data.text.vocabulary import Vocabulary, train_vocabulary
from coca_jax.errors import CocaError

_SCENES = 1_000  # which hold every word of the scenes' language many times
_MAX_TEXTS = 1_000_000
_THREADS = 16  # that read: most of the time is spent waiting for a disk or a network
_GROUP = 32  # records that a thread reads at a time
_log = logging.getLogger(__name__)


def load_vocabulary(config: Config) -> Vocabulary:
    """The vocabulary of the file that the config names, or one trained on its captions."""
    if config.data.vocabulary:
        return Vocabulary.from_file(config.data.vocabulary)
    vocabulary = train_vocabulary(training_captions(config), config.model.text.vocabulary_size)
    _log.info("data.vocabulary is empty: trained one of %d pieces on the captions", vocabulary.size)
    return vocabulary


def training_captions(config: Config) -> Iterator[str]:
    """Texts of the training records of `config.data`: at most a million, an equal part of each source.

    All captions of a record, cleaned as in training; if texts are made from labels, one a record, in a random prompt.
    Raises CocaError if the records cannot be found, or none of a source has a text.
    """
    sources = config.data.sources
    for source in sources.values():
        if source.dataset.format == "digit_scenes":
            for index in range(_SCENES):
                yield from phrasings(words(index)[1])
        else:
            yield from _stored_texts(source.dataset, _MAX_TEXTS // len(sources))


def _stored_texts(dataset: DatasetConfig, most: int) -> Iterator[str]:
    store = open_records(dataset, "train")
    texts = Texts(dataset, store)
    causes: list[str] = []

    def of_group(indices: Sequence[int]) -> list[str]:
        group: list[str] = []
        for index, record in zip(indices, store.read_texts(indices), strict=True):
            try:
                if isinstance(record, BadRecord):
                    raise record
                if dataset.label_field:
                    group.append(texts.draw(record, np.random.default_rng(index)))
                else:
                    group += texts.all(record)
            except BadRecord as error:  # the pipeline counts and names it
                causes.append(error.cause)
        return group

    indices = range(0, len(store), -(-len(store) // most))
    groups = [indices[first : first + _GROUP] for first in range(0, len(indices), _GROUP)]
    count = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(groups), _THREADS):  # not all at once: if records have many captions, few are needed
            for group in pool.map(of_group, groups[first : first + _THREADS]):
                yield from group[: most - count]
                count += len(group)
                if count >= most:
                    return
    if not count:
        common = Counter(causes).most_common()
        counts = ", ".join(f"{cause}: {number}" for cause, number in common)
        not_utf8 = common and common[0][0] == fields.NOT_UTF8
        advice = "save the texts as UTF-8" if not_utf8 else "check the dataset's text_fields or label_field"
        problem = f"none of the {len(indices)} records of {dataset.path} has a text to train a vocabulary on ({counts})"
        raise CocaError(f"{problem}: {advice}")
