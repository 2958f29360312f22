"""What the command lines share: one-sentence errors, exit statuses, and being one process of several.

0: done. 2: something that a person can put right, said in one sentence. 75: preempted, the same command continues.
Anything else that ends a command is a bug and keeps its traceback.
"""

import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags
from absl import logging as absl_logging

from coca_jax.config import Config, EvaluationConfig, evaluation_from_config_dict, from_config_dict
from coca_jax.errors import CocaError

_log = logging.getLogger("coca_jax")
_USER_ERROR = 2
_BUG = 1


def fail(message: object) -> None:
    """Prints one sentence and leaves with status 2."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(_USER_ERROR)


def define_distributed() -> flags.FlagHolder:
    return flags.DEFINE_bool(
        "distributed", False, "Be one process of several that work on this together: see docs/launching.md."
    )


@contextlib.contextmanager
def among_hosts(distributed: flags.FlagHolder) -> Iterator[None]:
    """Inside, this process is one of several, where the flag says so.

    The first speaks as ever, the others of trouble only. Where one fails it leaves at once, with its own status: the
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
        _log.error("%s failed; the log of the first one to fail says why:\n%s", hosts.name(), traceback.format_exc())
        hosts.abandon(_BUG)
    hosts.leave()


def no_more(arguments: list[str]) -> None:
    """Refuses arguments that are no flags."""
    if len(arguments) > 1:
        raise CocaError(f"{arguments[1]!r} is not a flag: flags begin with --, and --help lists them")


def required(flag: flags.FlagHolder) -> str:
    """The flag's value.

    Raises:
      CocaError: it was not given.
    """
    if not flag.value:
        raise CocaError(f"--{flag.name} is missing: --help says what it is")
    return flag.value


def config(flag: flags.FlagHolder, *, reads_data: bool = True) -> Config:
    """The strictly converted value of a `--config` flag.

    Args:
      reads_data: False: the command reads none, so that a config which asks for a folder is complete without one.

    Raises:
      CocaError: it was not given, the file cannot be read, or what it says does not hold together.
    """
    try:
        values = required(flag)
        hasattr(values, "model")  # ml_collections keeps the error of a missing file for whoever reads the config first
        return from_config_dict(values, reads_data=reads_data)
    except OSError:
        raise _unreadable_config() from None


def evaluation_config(flag: flags.FlagHolder, names: Sequence[str]) -> EvaluationConfig:
    """The same for a file of `configs/eval/`, of which only the datasets of these names are kept, or all."""
    try:
        values = required(flag)
        if not hasattr(values, "datasets"):
            raise CocaError("--config names no evaluation: give a file of configs/eval/, such as configs/eval/coco.py")
        return evaluation_from_config_dict(values, names)
    except OSError:
        raise _unreadable_config() from None


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs `main` with the remaining arguments; its `CocaError` becomes one sentence, its return value the status."""
    # The chatter of Orbax, XLA and TensorFlow would bury the one line that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl_logging.set_verbosity(absl_logging.ERROR)
    _log.handlers, _log.propagate = [_handler()], False
    _log.setLevel(logging.INFO)

    def guarded(arguments: list[str]) -> int | None:
        try:
            return main(arguments)
        except CocaError as error:
            fail(error)

    app.run(guarded, flags_parser=_parse)


def _handler(prefix: str = "") -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s  {prefix}%(message)s", "%H:%M:%S"))
    return handler


def _parse(arguments: list[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except CocaError as error:  # raised by a config file
        fail(error)
    except OSError:  # how config_flags reports a missing file that a flag would override
        fail(_unreadable_config())
    except flags.Error as error:
        fail(f"{error}; --help lists the flags")
    except (AttributeError, KeyError) as error:  # how ConfigDict reports a key that it does not have
        fail(_unknown_key(str(error)))


def _unreadable_config() -> CocaError:
    given = [argument.split("=", 1)[1] for argument in sys.argv if re.match("--?config=", argument)]
    return CocaError(f"the configuration file {' '.join(given)} cannot be read: check --config")


def _unknown_key(message: str) -> str:
    found = re.search(r'Did you mean "(.+?)" instead of "(.+?)"', message)
    if found:
        return f"the config has no key {found[2]!r}: did you mean {found[1]!r}?"
    return f"the config has no such key: {message.strip(chr(34) + chr(39))}"
