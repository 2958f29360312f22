"""A run's folder: claimed by one run at a time; a failure to write in it becomes one sentence."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import platform
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

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
    ends with its process. Between machines without such a lock, and in buckets, `.owner.json` decides: its owner writes
    it anew every few seconds, and one that stays as it is belongs to a process that has died. No clocks are compared.
    On entry a CocaError on every process if another run has the folder.
    """

    def __init__(self, folder: epath.Path):
        self._stack, self._folder, self._path = contextlib.ExitStack(), folder, folder / ".owner.json"
        self._identity = {
            "host": platform.node(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": time.strftime("%F %T"),
            "run": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._successor: dict[str, Any] | None = None

    def __enter__(self) -> "Claim":
        with self._stack:  # closed here if the folder is refused
            hosts.from_first(self._take)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raises CocaError if another run has taken the folder, since this one gave no sign of life for too long."""
        if self._successor:
            raise self._refusal(self._successor)

    def _take(self) -> bytes:
        locked = not is_remote(self._folder) and self._lock()
        before = self._owner()
        if before and not (locked and before["machine"] == self._identity["machine"]):
            self._await_death(before)
        self._write()
        thread = threading.Thread(target=self._beat, name="claim of the folder", daemon=True)
        thread.start()
        self._stack.callback(self._release, thread)
        return b""

    def _release(self, thread: threading.Thread) -> None:
        self._ended.set()
        thread.join()
        if not self._successor:
            self._path.unlink(missing_ok=True)

    def _lock(self) -> bool:
        """Takes the operating system's lock; False if the disk has no locks."""
        file = self._stack.enter_context((self._folder / ".lock").open("w"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(self._owner()) from None
        except OSError:
            return False
        return True

    def _await_death(self, owner: dict[str, Any]) -> None:
        _log.info("%s was in use on %s: waits %.0f s for a sign of life", self._folder, owner["host"], _LEASE_SECONDS)
        deadline = time.monotonic() + _LEASE_SECONDS
        while time.monotonic() < deadline and (now := self._owner()):
            if now != owner:
                raise self._refusal(now)
            time.sleep(_LEASE_SECONDS / 35)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next one may succeed
                owner = self._owner()
                if owner and owner["run"] != self._identity["run"]:
                    self._successor = owner
                    return
                self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(self._identity | {"beat": time.time()}))

    def _owner(self) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads(self._path.read_text())
        return None

    def _refusal(self, owner: dict[str, Any] | None) -> CocaError:
        who = f" (process {owner['pid']} on {owner['host']}, since {owner['since']})" if owner else ""
        return CocaError(
            f"{self._folder} is in use by another training{who}: wait for its end, stop it, or choose another --workdir"
        )


def _machine() -> str:
    """The machine since its start; containers on it have the same."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


@contextlib.contextmanager
def writing(folder: epath.Path) -> Iterator[None]:
    """Inside, a failure to make `folder` or to write in it, a checkpoint too, raises a CocaError."""
    try:
        yield
    except (OSError, ValueError) as error:
        place, reason = str(getattr(error, "filename", None) or folder), getattr(error, "strerror", None) or str(error)
        by_tensorstore = re.search(r"([^:]*) \[os_error_code=", str(error))  # which reports a ValueError
        if by_tensorstore:
            reason = by_tensorstore[1].strip()
        elif isinstance(error, ValueError) or not (
            error.errno in _FULL or place.startswith(str(folder)) or str(folder).startswith(place)
        ):
            raise
        raise CocaError(
            f"{place} cannot be written ({reason}): make room, or give --workdir a folder that can, and the same command "
            "continues from the last good checkpoint"
        ) from error
