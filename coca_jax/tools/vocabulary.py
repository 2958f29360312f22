"""Trains a SentencePiece vocabulary on a config's training captions, an equal part of each source of a mixture.

    python -m coca_jax.tools vocabulary --config=configs/x.py --output=vocabulary.model --size=8000

Every run whose data.vocabulary names the file shares it.
"""

from collections.abc import Callable

from absl import flags

from coca_jax.cli.app import define_path, required
from coca_jax.config import Config
from coca_jax.data.text.corpus import training_captions
from coca_jax.data.text.vocabulary import train_vocabulary


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; returns the function that runs it."""
    output = define_path("output", "The .model file, on a disk or in a bucket.", values)
    size = flags.DEFINE_integer("size", 0, "Pieces; 0: model.text.vocabulary_size.", 0, flag_values=values)

    def run(config: Config) -> None:
        path = required(output)
        trained = train_vocabulary(training_captions(config), size.value or config.model.text.vocabulary_size)
        trained.save(path)
        print(f"{path}: {trained.size} pieces")

    return run
