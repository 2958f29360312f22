"""What lies in buckets, through fsspec: gs://, s3://, memory://, …

A network read may fail or hang: it runs in a thread of its own, is given up after `TIMEOUT` seconds (whatever its
driver's own timeouts are) and repeated after each of `WAITS`.
"""

import io
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from coca_jax.errors import CocaError

TIMEOUT = 60.0  # seconds for one attempt
WAITS = (0.5, 2.0, 8.0)  # seconds between attempts
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # trying again would not help
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def system_of(path: str) -> tuple[Any, str]:
    """The file system of an address, and the path that it has there."""
    import fsspec  # here, because most runs read from disks alone

    protocol = path.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        driver = _DRIVERS.get(protocol)
        todo = f"pip install {driver}" if driver else str(error)
        raise CocaError(f"{path} needs a driver for {protocol}:// that is not installed: {todo}") from error
    except ValueError as error:
        raise CocaError(f"{path} cannot be opened ({error}): write gs://, s3:// or a folder of a disk") from error


def persistently(path: str, work: Callable[[], _T]) -> _T:
    """What a network operation returns, repeated where it fails; raises OSError where it fails to the end."""
    for attempt, wait in enumerate((*WAITS, None), 1):
        try:
            return _in_time(work)
        except _FINAL:
            raise
        except Exception as error:  # drivers raise errors of their own kinds
            if wait is None:
                raise OSError(f"{path} failed {attempt} times: {error or type(error).__name__}") from error
            _log.warning("%s failed at attempt %d (%s): again in %g s", path, attempt,
                         str(error) or type(error).__name__, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _in_time(work: Callable[[], _T]) -> _T:
    answer: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put((work(), None))
        except Exception as error:
            answer.put((None, error))

    # A daemon: a thread that hangs for ever keeps nobody from leaving.
    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = answer.get(timeout=TIMEOUT)
    except queue.Empty:
        raise TimeoutError(f"no answer in {TIMEOUT:g} s") from None
    if error is not None:
        raise error
    return value


class RemoteFile(io.RawIOBase):
    """A remote file of a known size, each read of which is repeated where it fails."""

    def __init__(self, path: str, size: int):
        self._path, self._size, self._place = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        data = read_range(self._path, self._place, end)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def read_range(path: str, start: int, end: int) -> bytes:
    """Bytes start to end; raises OSError where they cannot be read."""
    system, inner = system_of(path)
    return persistently(path, lambda: system.cat_file(inner, start=start, end=end))
