"""Bytes of files, wherever they lie: a disk, or what fsspec knows (gs://, s3://, memory://, …).

Disks are read by pread. What the network does to reads of buckets is remote.py's concern.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from coca_jax.data.images.decode import BadRecord
from coca_jax.errors import CocaError
from coca_jax.storage import remote
from coca_jax.storage.files import is_remote

LARGEST = 256 * 1024 * 1024  # bytes of one member or picture; more is damage or malice
_PARALLEL = 16  # network reads at a time, for one caller
_GAP, _REMOTE_GAP = 64 * 1024, 1024 * 1024  # bytes between two spans that are read for nothing rather than skipped
_RUN = 32 * 1024 * 1024  # bytes read at a time
_BUFFER = 4 * 1024 * 1024  # bytes read ahead where a remote file is scanned
_VERSIONS = ("etag", "ETag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class File:
    """A file as it was when it was listed.

    Attributes:
      path: its whole path or address.
      name: its path relative to the folder that was searched, with slashes.
      size: bytes.
      version: changes where its contents do: time of change, or the object's etag.
    """

    path: str
    name: str
    size: int
    version: str


def find(folder: str) -> list[File]:
    """All files below a folder, by name.

    Raises:
      CocaError: there is no such folder or bucket, or it cannot be listed.
    """
    if not is_remote(folder):
        if not os.path.isdir(folder):
            raise CocaError(
                f"the folder {folder} does not exist: set --config.data.dataset.path to the folder of the data"
            )
        try:
            return sorted(_below(folder, ""), key=lambda file: file.name)
        except OSError as error:
            raise CocaError(f"{folder} cannot be listed ({error}): give yourself the right to read it") from error
    system, inner = remote.system_of(folder)

    def listing() -> dict[str, Any]:
        system.invalidate_cache()
        return system.find(inner, detail=True)

    try:
        found = remote.persistently(folder, listing)
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise CocaError(f"{folder} cannot be listed ({error}): check the address and your credentials") from error
    if not found:
        raise CocaError(f"there is nothing below {folder}: set --config.data.dataset.path to the address of the data")
    start = len(inner.rstrip("/")) + 1
    files = [_of_info(f"{folder.rstrip('/')}/{name[start:]}", name[start:], info) for name, info in found.items()]
    return sorted((file for file in files if file), key=lambda file: file.name)


def stat(path: str) -> File | None:
    """The file, named by the last part of its path; None where there is no file."""
    name = path.rstrip("/").rpartition("/")[2]
    try:
        if not is_remote(path):
            status = os.stat(path)
            found = File(path, name, status.st_size, str(status.st_mtime_ns))
            return found if os.path.isfile(path) else None
        system, inner = remote.system_of(path)
        return _of_info(path, name, remote.persistently(path, lambda: system.info(inner)))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None


def read(path: str, cause: str = "unreadable file", largest: int = LARGEST) -> bytes:
    """The whole file, of at most `largest` bytes.

    Raises:
      BadRecord: "missing file", "file too large", or `cause`.
    """
    try:
        if is_remote(path):
            data = remote.read_range(path, 0, largest + 1)
            if len(data) > largest:
                raise BadRecord("file too large")
            return data
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > largest:
                raise BadRecord("file too large")
            return file.read()
    except FileNotFoundError as error:
        raise BadRecord("missing file") from error
    except (OSError, ValueError) as error:
        raise BadRecord(cause) from error


def read_each(paths: Sequence[str]) -> list[bytes | BadRecord]:
    """Several whole files, remote ones at the same time; a BadRecord where `read` would raise it."""
    return _each(read, paths, any(map(is_remote, paths)))


def stat_each(paths: Sequence[str]) -> list[File | None]:
    """`stat` of several paths, remote ones at the same time."""
    return _each(stat, paths, any(map(is_remote, paths)))


def read_range(path: str, offset: int, size: int, cause: str = "unreadable file") -> bytes:
    """`size` bytes from `offset` on; fewer where the file ends.

    Raises:
      BadRecord: "missing file", or `cause`.
    """
    try:
        if is_remote(path):
            return remote.read_range(path, offset, offset + size)
        # Opened anew each time: a thousand shards would exceed the limit on open files.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise BadRecord("missing file") from error
    except OSError as error:
        raise BadRecord(cause) from error


def read_spans(path: str, spans: Sequence[tuple[int, int]], cause: str = "unreadable file") -> list[bytes | BadRecord]:
    """The bytes of each (offset, size); spans that lie close together are read at once.

    A BadRecord stands where a span cannot be read ("missing file", `cause`) or is larger than `LARGEST`.
    """
    result: list[bytes | BadRecord] = [BadRecord("member too large")] * len(spans)
    order = sorted((offset, size, place) for place, (offset, size) in enumerate(spans) if size <= LARGEST)
    runs: list[list[tuple[int, int, int]]] = []
    gap, end = _REMOTE_GAP if is_remote(path) else _GAP, 0
    for span in order:
        offset, size, _ = span
        if not runs or offset > end + gap or offset + size - runs[-1][0][0] > _RUN:
            runs.append([])
            end = offset
        runs[-1].append(span)
        end = max(end, offset + size)

    def run_bytes(run: list[tuple[int, int, int]]) -> bytes:
        start = run[0][0]
        return read_range(path, start, max(offset + size for offset, size, _ in run) - start, cause)

    for run, data in zip(runs, _each(run_bytes, runs, is_remote(path)), strict=True):
        if isinstance(data, BadRecord) and len(run) > 1 and data.cause == cause and not is_remote(path):
            # A bad sector must not spoil the records that are read with it.
            for (_, _, place), part in zip(run, _each(lambda span: run_bytes([span]), run, False), strict=True):
                result[place] = part
            continue
        for offset, size, place in run:
            if isinstance(data, BadRecord):
                result[place] = data
                continue
            start = offset - run[0][0]
            part = data[start : start + size]
            result[place] = part if len(part) == size else BadRecord(cause)
    return result


def open_file(file: File) -> BinaryIO:
    """The file for reading from its beginning, with `seek`; remote ones are read ahead.

    Raises:
      OSError: it cannot be read, then or while it is.
    """
    if is_remote(file.path):
        return io.BufferedReader(remote.RemoteFile(file.path, file.size), _BUFFER)
    return open(file.path, "rb")


def write(path: str, data: bytes) -> None:
    """Writes a file so that a reader never sees half of it, even where several processes write it; makes its folder.

    Raises:
      OSError: it cannot be written.
    """
    if is_remote(path):
        system, inner = remote.system_of(path)
        remote.persistently(path, lambda: system.pipe_file(inner, data))  # an object appears when all of it has arrived
        return
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from others who share the data
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def is_writable(folder: str) -> bool:
    """Whether files may be put into a folder of a disk; one that nobody may write to is left alone, even by root."""
    try:
        return bool(os.stat(folder).st_mode & 0o222) and os.access(folder, os.W_OK)
    except OSError:
        return False


def digest(*parts: str) -> str:
    """16 hex digits that depend on every part."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def cache_folder() -> str:
    """Where what can be made again is kept: COCA_CACHE (which may lie in a bucket), or ~/.cache/coca_jax."""
    return os.environ.get("COCA_CACHE") or str(Path.home() / ".cache" / "coca_jax")


def _below(folder: str, prefix: str) -> list[File]:
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                files += _below(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                with contextlib.suppress(FileNotFoundError):  # removed just now
                    status = entry.stat()
                    files.append(File(entry.path, prefix + entry.name, status.st_size, str(status.st_mtime_ns)))
    return files


def _of_info(path: str, name: str, info: dict[str, Any]) -> File | None:
    if info.get("type") == "directory":
        return None
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    if hasattr(version, "timestamp"):  # some drivers give a date where they list, and seconds where they are asked
        version = version.timestamp()
    return File(path, name, int(info.get("size") or 0), str(version))


def _each(work: Callable[[Any], _T], things: Sequence[Any], together: bool) -> list[_T | BadRecord]:
    def careful(thing: Any) -> _T | BadRecord:
        try:
            return work(thing)
        except BadRecord as error:
            return error

    if together and len(things) > 1:
        with concurrent.futures.ThreadPoolExecutor(min(_PARALLEL, len(things))) as pool:
            return list(pool.map(careful, things))
    return [careful(thing) for thing in things]
