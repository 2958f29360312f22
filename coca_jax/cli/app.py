"""Code shared by the command lines: flags, one-sentence errors, exit statuses, and being one process of several.

Exit statuses: 0 done; 2 an error that the user can mend, printed as one sentence; 75 preempted, and the same command
continues; 141 standard output was closed by its reader, as with `| head`. Anything else is a bug, with its traceback.
"""

import contextlib
import logging
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from coca_jax.config import Config, EvaluationConfig, evaluation_from_config_dict, from_config_dict
from coca_jax.errors import CocaError

_log = logging.getLogger("coca_jax")
_BUG, _USER_ERROR, _PIPE_CLOSED = 1, 2, 128 + 13  # the last as a shell reports SIGPIPE
flags.disclaim_key_flags()  # --help of a command lists the flags that it defines through this module


class _PathParser(flags.ArgumentParser):
    """Paths whose leading ~ means the home folder, also after a flag's =, where shells leave it as it is."""

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


def define_path(name: str, description: str, values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder[str | None]:
    """A flag with a path or an address."""
    return flags.DEFINE(_PathParser(), name, None, description, values, flags.ArgumentSerializer())


def define_paths(name: str, description: str, values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder[list[str]]:
    """A flag with a path or an address, which may be given several times."""
    return flags.DEFINE_multi(_PathParser(), flags.ArgumentSerializer(), name, [], description, values)


def define_checkpoint() -> flags.FlagHolder[str | None]:
    """The flag --checkpoint."""
    return define_path("checkpoint", "A run's folder, or one checkpoint below its checkpoints folder.")


def define_config(folder: str) -> flags.FlagHolder[Any]:
    """The flag --config with a config file, and --config.KEY for each of its keys."""
    return config_flags.DEFINE_config_file("config", None, f"A file of {folder}/; override with --config.key=value.")


def define_distributed() -> flags.FlagHolder[bool]:
    """The flag --distributed."""
    description = "Be one process of several that work on this together: see docs/launching.md."
    return flags.DEFINE_bool("distributed", False, description)


def required(flag: flags.FlagHolder[Any]) -> Any:
    """The flag's value; without one a CocaError."""
    if not flag.value:
        raise CocaError(f"--{flag.name} is missing: --help describes it")
    return flag.value


def reject_positional_arguments(arguments: Sequence[str]) -> None:
    """Raises CocaError for an argument that is not a flag."""
    if len(arguments) > 1:
        raise CocaError(f"{arguments[1]!r} is not a flag: flags begin with --, and --help lists them")


def config(flag: flags.FlagHolder[Any], *, reads_data: bool = True) -> Config:
    """The strictly converted value of a `--config` flag; CocaError if it is missing or refused."""
    return from_config_dict(required(flag), reads_data=reads_data)


def evaluation_config(flag: flags.FlagHolder[Any], names: Sequence[str]) -> EvaluationConfig:
    """The same for a file of `configs/eval/`, of which only the datasets of these names are kept; no names: all."""
    values = required(flag)
    if not hasattr(values, "datasets"):
        raise CocaError("--config names no evaluation: give a file of configs/eval/, such as configs/eval/coco.py")
    return evaluation_from_config_dict(values, names)


@contextlib.contextmanager
def among_hosts(distributed: flags.FlagHolder[bool]) -> Iterator[None]:
    """Inside, this process is one of several, if the flag is set.

    The first one logs as usual, the others only trouble. One that fails leaves at once, with its own status: the
    regular way out would wait for the others, which may wait for it.
    """
    if not distributed.value:
        yield
        return
    from coca_jax.distributed import processes as hosts

    hosts.join()
    if not hosts.is_first():
        _log.setLevel(logging.WARNING)
        _log.handlers = [_handler(f"{hosts.name()}: ")]
    try:
        yield
    except CocaError as error:
        print(f"error: {error} ({hosts.name()})", file=sys.stderr)
        hosts.abandon(_USER_ERROR)
    except Exception:
        _log.error("%s failed; the log of the first one to fail shows why:\n%s", hosts.name(), traceback.format_exc())
        hosts.abandon(_BUG)
    hosts.leave()


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs `main` with the positional arguments; its `CocaError` becomes one sentence, its return value the status."""
    # The chatter of XLA and TensorFlow, and that of Orbax about errors that it raises too, would bury the line that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _report_unraisable
    _log.handlers, _log.propagate = [_handler()], False
    _log.setLevel(logging.INFO)

    def guarded(arguments: list[str]) -> int | None:
        try:
            status = main(arguments)
            sys.stdout.flush()  # a closed pipe must show here, and not while the interpreter shuts down
            return status
        except CocaError as error:
            fail(error)
        except BrokenPipeError:
            poll = select.poll()
            poll.register(sys.stdout, 0)  # for errors alone, of which a reader that has left is one
            if not poll.poll(0):
                raise
            # The rest of the buffer would fail at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _PIPE_CLOSED

    sys.argv = [_with_home(argument) for argument in sys.argv]
    app.run(guarded, flags_parser=_parse)


def fail(message: object) -> NoReturn:
    """Prints one sentence and leaves with status 2."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(_USER_ERROR)


def _report_unraisable(failure: Any) -> None:
    """The usual report, but for tensorstore's callbacks after a save that failed, and is an error of its own."""
    if str(failure.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(failure)


def _handler(prefix: str = "") -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s  {prefix}%(message)s", "%H:%M:%S"))
    return handler


def _parse(arguments: list[str]) -> list[str]:
    try:
        positional = flags.FLAGS(arguments)
        if "config" in flags.FLAGS:
            hasattr(flags.FLAGS.config, "model")  # config_flags keeps an error of opening the file for the first access
        return positional
    except SystemExit:  # absl has printed the help, and leaves with 1
        sys.exit(0)
    except CocaError as error:  # raised by a config file
        fail(error)
    except OSError:  # raised by config_flags
        paths = [argument.split("=", 1)[1] for argument in sys.argv if re.match("--?config=", argument)]
        fail(f"the configuration file {' '.join(paths)} cannot be read: check --config")
    except flags.Error as error:
        fail(f"{error}; --help lists the flags")
    except (AttributeError, KeyError) as error:  # how ConfigDict reports a key that it does not have
        keys = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', str(error))
        alone = re.match(r'\W*(?:Key "(\w+)" does not exist|(\w+)\W*$)', str(error))
        meant = f" {keys[2]!r}: did you mean {keys[1]!r}?" if keys else f": {error}"
        if alone and not keys:  # the rest of its text is a listing of the config
            meant = f" {(alone[1] or alone[2])!r}: coca_jax/config/ lists the keys"
        fail(f"the config has no key{meant}")


def _with_home(argument: str) -> str:
    """The argument; in --config=~/FILE, which config_flags opens as it is written, with the home folder."""
    flag, equals, path = argument.partition("=")
    return flag + equals + os.path.expanduser(path) if flag in ("--config", "-config") else argument
