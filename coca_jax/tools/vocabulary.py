"""Trains a SentencePiece vocabulary on a config's training captions, those of a mixture in proportion.

    python -m coca_jax.tools vocabulary --config=configs/x.py --output=vocabulary.model --size=8000

Name the file in data.vocabulary, and every run that does shares it.
"""

import pathlib
from collections.abc import Callable

from absl import flags

from coca_jax.config import Config
from coca_jax.data.text.corpus import training_captions
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError


def define(values: flags.FlagValues) -> Callable[[Config], None]:
    """Adds the command's flags; gives what runs it."""
    output = flags.DEFINE_string("output", None, "The .model file to write.", flag_values=values)
    size = flags.DEFINE_integer(
        "size",
        0,
        "Number of pieces, special ones included; 0: config.model.text.vocabulary_size.",
        lower_bound=0,
        flag_values=values,
    )

    def run(config: Config) -> None:
        if not output.value:
            raise CocaError("--output is missing: name a .model file")
        path = pathlib.Path(output.value)
        trained = train_vocabulary(training_captions(config), size.value or config.model.text.vocabulary_size)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(trained.model_bytes)
        except OSError as error:
            raise CocaError(f"{path} cannot be written ({error.strerror}): choose another --output") from error
        print(f"{path}: {trained.size} pieces")

    return run
