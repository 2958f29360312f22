"""Trains a SentencePiece vocabulary on a config's training captions, an equal part of each source of a mixture.

    python -m coca_jax.tools vocabulary --config=configs/x.py --output=vocabulary.model --size=8000

Every run whose data.vocabulary names the file shares it.
"""

from collections.abc import Callable

from absl import flags

from coca_jax.config import Config
from coca_jax.data.text.corpus import training_captions
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    output = flags.DEFINE_string("output", None, "The .model file, on a disk or in a bucket.", flag_values=values)
    size = flags.DEFINE_integer("size", 0, "Pieces; 0: model.text.vocabulary_size.", 0, flag_values=values)

    def run(config: Config) -> None:
        if not output.value:
            raise CocaError("--output is missing: name a .model file")
        trained = train_vocabulary(training_captions(config), size.value or config.model.text.vocabulary_size)
        trained.save(output.value)
        print(f"{output.value}: {trained.size} pieces")

    return run
