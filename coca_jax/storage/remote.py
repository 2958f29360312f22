"""Reads of buckets through fsspec: gs://, s3://, memory://, …, with deadlines, retries and patience in outages.

A read that hangs is given up after `TIMEOUT` seconds, one that fails is repeated after each of `WAITS`. If it still
fails while its bucket answers, that file is unreadable. A bucket that answered before and is silent now has an outage:
reads wait for its end, so that no record is lost to it, but end the run after `OUTAGE` seconds without any success.
"""

import concurrent.futures
import contextlib
import io
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from coca_jax.errors import CocaError, DataError

TIMEOUT = 60.0  # seconds of one attempt
WAITS = (0.5, 2.0, 8.0)  # seconds between attempts; the last one repeats in an outage
OUTAGE = 300.0  # seconds without a successful read after which a run no longer waits
_REPORT = 30.0  # seconds between two lines of log about an outage
_clock, _sleep = time.monotonic, time.sleep
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)  # repeating would not help
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def system_of(path: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path within it; CocaError if no driver for it is installed."""
    import fsspec  # here, because most runs read from disks alone

    protocol = path.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        todo = f"pip install {_DRIVERS[protocol]}" if protocol in _DRIVERS else str(error)
        raise CocaError(f"{path} needs a driver for {protocol}:// that is not installed: {todo}") from error
    except ValueError as error:
        raise CocaError(f"{path} cannot be opened ({error}): write gs://, s3:// or a folder of a disk") from error


def read_range(path: str, start: int, end: int) -> bytes:
    """The bytes from `start` to `end`; fewer at the end of the file. Raises as `persistently`."""
    system, inner = system_of(path)
    return persistently(path, lambda: system.cat_file(inner, start=start, end=end))


def open_file(path: str, size: int, ahead: int) -> BinaryIO:
    """A file of a known size, of which `ahead` bytes are read at a time; reads raise as `persistently`."""
    from fsspec.spec import AbstractBufferedFile

    class File(AbstractBufferedFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            return read_range(path, start, end)

    return io.BufferedReader(File(None, path, cache_type="none", size=size), ahead)


def find(folder: str) -> dict[str, dict[str, Any]]:
    """fsspec's info of all files below an address, by their paths relative to it. Raises as `persistently`."""
    system, inner = system_of(folder)

    def listing() -> dict[str, Any]:
        system.invalidate_cache()
        return system.find(inner, detail=True)

    with contextlib.suppress(FileNotFoundError):
        start = len(inner.rstrip("/")) + 1
        return {name[start:]: info for name, info in persistently(folder, listing).items()}
    return {}


class _Bucket:
    """The outcome of recent reads of a bucket, by several threads."""

    def __init__(self, name: str):
        self.name, self.answered = name, False
        self._began = self._last = self._reported = -math.inf  # first and last failure in a row, last line of log
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        self.answered, self._began = True, -math.inf

    def failed(self) -> float:
        """Seconds since the first of the failures that no success has interrupted."""
        with self._lock:
            now = _clock()
            # More than a wait, a probe and a read that hang: no read was attempted in between.
            if self._began == -math.inf or now - self._last > 3 * TIMEOUT:
                self._began = now
            self._last = now
            return now - self._began

    def report(self, seconds: float, reason: str) -> None:
        with self._lock:
            if _clock() - self._reported < _REPORT:
                return
            self._reported = _clock()
        message = "%s has not been readable for %.0f s (%s): waiting for it, for at most %.0f s"
        _log.warning(message, self.name, seconds, reason, OUTAGE)


_buckets: dict[str, _Bucket] = {}


def persistently(path: str, work: Callable[[], _T]) -> _T:
    """The result of a network operation, repeated while it fails.

    Raises OSError if it failed for good, DataError if all reads of the bucket did for `OUTAGE` seconds, or the program
    ended meanwhile.
    """
    name = "/".join(path.split("/", 3)[:3])
    bucket = _buckets.setdefault(name, _Bucket(name))
    attempt, began = 0, math.inf
    while True:
        attempt += 1
        # Probed before the last attempt, not after it: an outage may end in between.
        alive = attempt <= len(WAITS) or not bucket.answered or _is_there(path)
        try:
            result = _in_time(work)
        except _FINAL:  # an answer, too
            bucket.succeeded()
            raise
        except Exception as error:  # drivers raise errors of their own kinds
            silent, reason = bucket.failed(), str(error) or type(error).__name__
            began = min(began, _clock())
            if _is_exiting():
                raise DataError(f"{path} could not be read ({reason}) when the program ended: start again") from error
            if attempt <= len(WAITS):
                wait = WAITS[attempt - 1]
                _log.warning("%s failed at attempt %d (%s): again in %g s", path, attempt, reason, wait)
            elif silent > OUTAGE:
                raise DataError(
                    f"nothing of {bucket.name} could be read for {silent:.0f} s ({path}: {reason}): when the network "
                    "and your credentials are well again, start the same command: it goes on from the last checkpoint"
                ) from error
            elif alive or _clock() - began > OUTAGE:  # the bucket has answered other reads meanwhile
                raise OSError(f"{path} failed {attempt} times: {reason}") from error
            else:
                wait = WAITS[-1]
                bucket.report(silent, reason)
            _sleep(wait)
        else:
            bucket.succeeded()
            return result


def _is_exiting() -> bool:
    """Whether the program has ended and only waits for its threads: from then on no pool takes work."""
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(int)
    except RuntimeError as error:
        return "shutdown" in str(error)  # rather than a lack of threads
    return False


def _is_there(path: str) -> bool:
    """Whether the bucket answers a question about a file, even if there is no such file."""
    system, inner = system_of(path)

    def ask() -> None:
        system.invalidate_cache(inner)  # an older listing would answer in the bucket's place
        system.info(inner)

    try:
        _in_time(ask)
    except Exception as error:
        return isinstance(error, _FINAL)
    return True


def _in_time(work: Callable[[], _T]) -> _T:
    answer: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except Exception as error:
            answer.set_exception(error)

    # A daemon: a thread that hangs for ever must not keep the program from ending.
    threading.Thread(target=run, daemon=True).start()
    concurrent.futures.wait([answer], TIMEOUT)
    if not answer.done():
        raise TimeoutError(f"no answer in {TIMEOUT:g} s")
    return answer.result()
