"""Tools for data sets.

    python -m coca_jax.data vocabulary --config=configs/x.py --output=vocabulary.model --size=8000

trains a SentencePiece vocabulary on the config's training captions.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from coca_jax import command_line
from coca_jax.data.corpus import training_captions
from coca_jax.data.vocabulary import train_vocabulary
from coca_jax.errors import CocaError

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/; override with --config.key=value.")
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.")
_SIZE = flags.DEFINE_integer(
    "size", 0, "Number of pieces, special ones included; 0: config.model.text.vocabulary_size.", lower_bound=0
)


def vocabulary() -> None:
    """Trains a vocabulary and writes its model."""
    config = command_line.config(_CONFIG)
    output = pathlib.Path(command_line.required(_OUTPUT))
    trained = train_vocabulary(training_captions(config), _SIZE.value or config.model.text.vocabulary_size)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(trained.model_bytes)
    except OSError as error:
        raise CocaError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    print(f"{output}: {trained.size} pieces")


_COMMANDS = {"vocabulary": vocabulary}


def main(arguments: list[str]) -> None:
    names = ", ".join(_COMMANDS)
    if len(arguments) < 2:
        raise CocaError(f"say what to do: python -m coca_jax.data COMMAND, with one of {names}")
    if arguments[1] not in _COMMANDS:
        raise CocaError(f"there is no command {arguments[1]!r}: choose one of {names}")
    command_line.no_more(arguments[1:])
    _COMMANDS[arguments[1]]()


if __name__ == "__main__":
    command_line.run(main)
