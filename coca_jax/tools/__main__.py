"""Tools for datasets.

python -m coca_jax.tools COMMAND --config=configs/x.py [--config.key=value …] [flags of the command]
python -m coca_jax.tools COMMAND --help
"""

import importlib
import sys

from absl import flags
from ml_collections import config_flags

from coca_jax.cli import app as command_line

COMMANDS = {  # module, imported only for its command, and description
    "index": ("coca_jax.tools.index", "makes the indices of a config's shards, so that a run opens them at once"),
    "vocabulary": ("coca_jax.tools.vocabulary", "trains a SentencePiece vocabulary on the training captions"),
    "inspect": ("coca_jax.tools.inspect", "shows samples of a batch exactly as the model sees them, as a page"),
    "stats": ("coca_jax.tools.stats", "counts images, captions and damage"),
    "dedup": ("coca_jax.tools.dedup.command", "lists training images that evaluation datasets contain, too"),
    "speed": ("coca_jax.tools.speed", "measures reading, decoding, tokenising and whole batches"),
}
_HELP = {"--help", "-help", "-h", "--helpshort", "--helpfull"}


def _show(text: str) -> None:
    """Prints a text as a command does: quietly if the reader of a pipe leaves early."""
    sys.argv[1:] = []
    command_line.run(lambda arguments: print(text))


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in _HELP:
        return _show("\n".join([str(__doc__), *(f"    {name:<10}  {words}" for name, (_, words) in COMMANDS.items())]))
    if arguments[0] not in COMMANDS:
        command_line.fail(f"there is no command {arguments[0]!r}: choose one of {', '.join(COMMANDS)}")
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    values = flags.FlagValues()
    command = module.define(values)
    if _HELP.intersection(arguments):
        own = values.get_help(include_special_flags=False)
        return _show(f"{module.__doc__}\nFlags besides --config=FILE[:ARGUMENT] and --config.key=value:\n{own}")
    flags.FLAGS.append_flag_values(values)
    config = config_flags.DEFINE_config_file("config", None, "A file of configs/; override with --config.key=value.")

    def run(rest: list[str]) -> None:
        values.mark_as_parsed()  # the flags are those of FLAGS, which has parsed them
        command_line.reject_positional_arguments(rest[1:])
        command(command_line.config(config))

    command_line.run(run)


if __name__ == "__main__":
    main()
