"""The captions that a vocabulary is trained on."""

from collections.abc import Iterator

from coca_jax.config import Config
from coca_jax.data import digit_scenes, records
from coca_jax.data.images import BadRecord

_SCENES = 1_000  # they hold every word of the scenes' language many times
_MOST_CAPTIONS = 1_000_000


def training_captions(config: Config) -> Iterator[str]:
    """Captions of the training records of `config.data`, at most a million; no picture is decoded.

    Raises:
      CocaError: the records cannot be found.
    """
    if config.data.task == "digit_scenes":
        for index in range(_SCENES):
            yield from digit_scenes.phrasings(digit_scenes.scene(index, "train"))
        return
    store = records.open_store(config.data, "train")
    stride = -(-len(store) // _MOST_CAPTIONS)
    said = 0
    for index in range(0, len(store), stride):
        try:
            captions = store.captions(index)
        except BadRecord:
            continue  # the pipeline counts and names it
        for caption in captions:
            if said == _MOST_CAPTIONS:
                return
            said += 1
            yield caption
