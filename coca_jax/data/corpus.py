"""The texts that a vocabulary is trained on."""

from collections.abc import Iterator

import numpy as np

from coca_jax.config import Config, SetConfig
from coca_jax.data import digit_scenes, records
from coca_jax.data.images import BadRecord
from coca_jax.data.texts import Texts

_SCENES = 1_000  # they hold every word of the scenes' language many times
_MOST_CAPTIONS = 1_000_000


def training_captions(config: Config) -> Iterator[str]:
    """Texts of the training records of `config.data`: at most a million, an equal part of each source.

    Captions come all, as training cleans them; where texts are made from labels, each record gives one, in a prompt drawn
    at random. No picture is decoded.

    Raises:
      CocaError: the records cannot be found.
    """
    sources = config.data.sources
    for source in sources.values():
        yield from _of_scenes() if source.task == "digit_scenes" else _of_store(source, _MOST_CAPTIONS // len(sources))


def _of_scenes() -> Iterator[str]:
    for index in range(_SCENES):
        yield from digit_scenes.phrasings(digit_scenes.scene(index, "train"))


def _of_store(source: SetConfig, most: int) -> Iterator[str]:
    store = records.open_store(source, "train")
    texts = Texts(source, store)
    said = 0
    for index in range(0, len(store), -(-len(store) // most)):
        try:
            if source.label_field:
                found = (texts.draw_of((), store.metadata(index), np.random.default_rng(index)),)
            else:
                found = texts.all_of(store.captions(index), {})
        except BadRecord:
            continue  # the pipeline counts and names it
        for text in found:
            if said == most:
                return
            said += 1
            yield text
