"""SIGTERM and Ctrl-C as a named exit: the run saves and leaves with a status that launchers restart on."""

import contextlib
import signal
from collections.abc import Iterator

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command continues the run


class Preempted(Exception):
    """The run was asked to stop; its state is saved (the loop saves it before it lets this pass)."""


class Preemption:
    """Notices SIGTERM and SIGINT while its context is entered. A second signal stops the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._immediate = False

    def __enter__(self) -> "Preemption":
        self._previous = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        if self.requested:
            raise Preempted

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, a signal raises `Preempted` where it finds the program: for waits that hold no half-made state."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _notice(self, number: int, _) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
        if self._immediate:
            raise Preempted
