"""A run's folder: claimed by one run at a time; an error in writing to it becomes one sentence."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, TextIO

from etils import epath

from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.storage.files import is_remote, write_atomically

_log = logging.getLogger(__name__)

_BEAT_SECONDS = 10.0  # between two signs of life of a claim's owner
_LEASE_SECONDS = 35.0  # an owner without a sign of life for so long is dead
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Claim:
    """The sole right to train in a folder while the context is entered; of several processes the first one holds it.

    On one machine, and on shared disks that support it, the operating system's lock on the file `.lock` decides, which
    ends with the process that holds it. Between machines without such a lock, and in buckets, `.owner.json` decides: its
    owner writes it anew every few seconds, and one that stays as it is belongs to a process that has died. So no
    machine's clock is compared with another's.

    Raises:
      CocaError: on every process, if another run has the folder.
    """

    def __init__(self, folder: epath.Path):
        self._folder, self._path = folder, folder / ".owner.json"
        self._self = {
            "host": platform.node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": time.strftime("%F %T"),
            "run": uuid.uuid4().hex,
        }
        self._lock: TextIO | None = None
        self._ended, self._successor = threading.Event(), None

    def __enter__(self) -> "Claim":
        hosts.from_first(self._take)
        return self

    def __exit__(self, *_: object) -> None:
        if not hosts.is_first():
            return
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if not self._successor:
                self._path.unlink(missing_ok=True)
        if self._lock:
            self._lock.close()

    def check(self) -> None:
        """Raises CocaError if another run has taken the folder, since this one gave no sign of life for too long."""
        if self._successor:
            raise self._refusal(self._successor)

    def _take(self) -> bytes:
        if not is_remote(self._folder):
            self._lock = open(self._folder / ".lock", "a")  # noqa: SIM115 - open as long as the claim
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._refusal(self._owner()) from None
            except OSError:  # a disk without such locks
                self._lock = None
        before = self._owner()
        if before and not (self._lock and before["machine"] == self._self["machine"]):
            self._await_death(before)
        self._write()
        self._thread = threading.Thread(target=self._beat, name="claim of the folder", daemon=True)
        self._thread.start()
        return b""

    def _await_death(self, before: dict[str, Any]) -> None:
        _log.info(
            "%s was last used on %s: waits up to %d s for a sign of life", self._folder, before["host"], _LEASE_SECONDS
        )
        deadline = time.monotonic() + _LEASE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(1.0, _LEASE_SECONDS / 10))
            now = self._owner()
            if now is None:
                return
            if now != before:
                raise self._refusal(now)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next sign of life may succeed
                now = self._owner()
                if now and now["run"] != self._self["run"]:
                    self._successor = now
                    return
                self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(self._self | {"beat": time.time()}))

    def _owner(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _refusal(self, owner: dict[str, Any] | None) -> CocaError:
        who = f" (process {owner['pid']} on {owner['host']}, since {owner['since']})" if owner else ""
        return CocaError(
            f"{self._folder} is in use by another training{who}: wait for its end, stop it, or choose another --workdir"
        )


def _machine() -> str:
    """The machine between two of its starts; containers on it have the same."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


@contextlib.contextmanager
def writing(folder: epath.Path) -> Iterator[None]:
    """Inside, a failure to make `folder` or to write in it raises a CocaError."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or "")
        if error.errno not in _FULL and not place.startswith(str(folder)) and not str(folder).startswith(place or "-"):
            raise
        raise CocaError(
            f"{place or folder} cannot be written ({error.strerror or error}): give --workdir a folder that can, or make "
            "room there, and the same command continues"
        ) from error
