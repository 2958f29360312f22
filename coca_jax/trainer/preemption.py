"""SIGTERM and Ctrl-C as a named exit: the run saves and leaves with a status that launchers restart on."""

import contextlib
import signal
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command continues the run


class Preempted(Exception):
    """A signal stopped the run; its state is saved (the loop saves it before it lets this pass)."""


class Preemption:
    """Notices SIGTERM and SIGINT while its context is entered.

    A second SIGTERM (Slurm sends several) while the state is being saved has no effect. A second Ctrl-C leaves at once.

    Of several processes a single one may receive the signal. It must not leave alone, for all compute each step
    together: they vote, once a step, and all stop after the same one.
    """

    def __init__(self) -> None:
        self.requested = False  # of this process
        self._immediate = False
        self._vote: jax.Array | None = None

    def __enter__(self) -> "Preemption":
        self._previous = {number: signal.signal(number, self._notice) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def poll(self) -> bool:
        """Whether all processes are to stop now; each calls this equally often.

        With several, this is the outcome of the vote that the previous call began: computed behind the step that was
        dispatched then, so that no process waits for it. Hence a request takes effect one or two calls later.
        """
        if jax.process_count() == 1:
            return self.requested
        before, self._vote = self._vote, _vote(self.requested)
        return before is not None and bool(jax.device_get(before))

    def check(self) -> None:
        """Polls, and raises `Preempted` if it is time to stop."""
        if self.poll():
            raise Preempted

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside, a signal raises `Preempted` at once: for waits that hold no half-made state.

        With several processes only a vote may stop them, and this has no effect.
        """
        if jax.process_count() > 1:
            yield
            return
        self._immediate = True  # before the check, or a signal between the two would wait for the next one
        try:
            self.check()
            yield
        finally:
            self._immediate = False

    def _notice(self, number: int, _) -> None:
        if self.requested:
            if number == signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self.requested = True
        if self._immediate:
            raise Preempted


_any = jax.jit(jnp.any)


def _vote(yes: bool) -> jax.Array:
    """Whether any process has voted yes: dispatched on all devices; reading the result waits for it."""
    mesh = Mesh(np.array(jax.devices()), ("all",))
    placed = NamedSharding(mesh, PartitionSpec("all"))
    with jax.set_mesh(mesh):
        return _any(jax.make_array_from_callback((mesh.size,), placed, lambda _: np.array([yes])))
