"""Tools for data sets.

python -m coca_jax.tools COMMAND --config=configs/x.py [--config.key=value …] [flags of the command]
python -m coca_jax.tools COMMAND --help
"""

import importlib
import sys
import textwrap
from collections.abc import Callable

from absl import flags
from ml_collections import config_flags

from coca_jax.cli import app as command_line
from coca_jax.config import Config
from coca_jax.errors import CocaError

COMMANDS = {  # each is a module of tools/, imported when it is asked for
    "index": "makes the indices of a config's shards, so that a run opens them at once",
    "vocabulary": "trains a SentencePiece vocabulary on the training captions",
    "look": "shows samples of a batch exactly as the model sees them, as a page",
    "stats": "counts pictures, captions and damage",
    "dedup": "finds training pictures that evaluation sets show, and lists them to be left out",
    "speed": "measures reading, decoding, tokenising and whole batches",
}
_HELP = {"--help", "-help", "-h", "--helpshort", "--helpfull"}


def _chosen(arguments: list[str]) -> str:
    names = ", ".join(COMMANDS)
    if not arguments:
        raise CocaError(f"say what to do: python -m coca_jax.tools COMMAND, with one of {names}")
    if arguments[0] not in COMMANDS:
        raise CocaError(f"there is no command {arguments[0]!r}: choose one of {names}")
    return arguments[0]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    return f"{__doc__}\n" + "\n".join(f"    {name:<{width}}  {words}" for name, words in COMMANDS.items())


def _help(module, own: list[flags.Flag]) -> str:
    lines = [
        module.__doc__.strip(),
        "",
        "Flags:",
        "  --config=FILE[:ARGUMENT]",
        "      A file of configs/; override with --config.key=value. Required.",
    ]
    for flag in own:
        choices = getattr(flag.parser, "enum_values", None)
        form = f"--{flag.name}=" + ("|".join(choices) if choices else flag.flag_type().upper().removeprefix("MULTI "))
        words = " ".join(flag.help.removeprefix(f"<{'|'.join(choices or ())}>: ").partition(";\n")[0].split())
        words += f" Default: {flag.default_as_str.strip(chr(39))}." if flag.default not in (None, "", []) else ""
        lines += [
            f"  --[no]{flag.name}" if flag.boolean else f"  {form}",
            textwrap.fill(words, 110, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)


def _prepared(name: str) -> tuple[Callable[[Config], None], str]:
    """Defines the command's flags; gives what runs it, and its help."""
    module = importlib.import_module(f"coca_jax.tools.{name}")
    before = set(flags.FLAGS)
    command = module.define(flags.FLAGS)
    return command, _help(module, [flags.FLAGS[name] for name in sorted(set(flags.FLAGS) - before)])


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _HELP:
        print(_overview())
        return
    try:
        name = _chosen(arguments)
    except CocaError as error:
        command_line.fail(error)
    command, words = _prepared(name)
    if _HELP.intersection(arguments):
        print(words)
        return
    config = config_flags.DEFINE_config_file("config", None, "A file of configs/; override with --config.key=value.")

    def run(rest: list[str]) -> None:
        command_line.reject_positional_arguments(rest[1:])
        command(command_line.config(config))

    command_line.run(run)


if __name__ == "__main__":
    main()
