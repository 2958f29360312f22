"""Bytes of files on disks and in buckets (gs://, s3://, memory://, and whatever else fsspec has a driver for).

Disks are read with pread. Retries and deadlines of network reads are in remote.py.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import tempfile
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from coca_jax.errors import CocaError
from coca_jax.storage import remote

if typing.TYPE_CHECKING:
    from etils import epath

LARGEST = 256 * 1024 * 1024  # bytes of one archive member or image; anything larger is damage or malice
_PARALLEL = 16  # concurrent network reads of one caller
_GAP, _REMOTE_GAP = 64 * 1024, 1024 * 1024  # bytes between two spans that are read in vain rather than skipped
_RUN = 32 * 1024 * 1024  # bytes of one read
_BUFFER = 4 * 1024 * 1024  # bytes read ahead when a remote file is scanned
_VERSIONS = ("etag", "ETag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
_SCHEMES = ("gs://", "s3://", "az://", "hf://")  # that etils knows
_T = TypeVar("_T")


class ReadError(Exception):
    """A failed read of one file; `cause` is a short phrase by which such failures are counted."""

    def __init__(self, cause: str):
        super().__init__(cause)
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class File:
    """A file as it was when it was listed.

    Attributes:
      path: on this machine, or an address.
      name: path relative to the folder that was listed, with slashes.
      size: bytes; -1: the file is a link to nothing.
      version: changes with the contents: modification time, or the object's etag.
    """

    path: str
    name: str
    size: int
    version: str


def is_remote(path: str | os.PathLike) -> bool:
    """Whether the path is an address such as gs://bucket/run."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike) -> "epath.Path":
    """The absolute local path, or the address, behind pathlib's interface; CocaError if etils knows no such address."""
    from etils import epath  # comes with orbax; imported here because every command imports this file

    if not is_remote(path):
        return epath.Path(os.path.abspath(path))
    if not os.fspath(path).startswith(_SCHEMES):
        raise CocaError(f"{path} cannot be written to: give a local path, or an address beginning with gs:// or s3://")
    return epath.Path(path)


def list_files(folder: str) -> list[File]:
    """All files below a folder, sorted by name.

    Files and folders whose name begins with a dot are left out. Symbolic links are followed; a folder that is reached
    by several ways is listed once, by its own path if that lies below `folder`. Raises CocaError if it cannot be listed.
    """
    if not is_remote(folder) and not os.path.isdir(folder):
        raise CocaError(f"the folder {folder} does not exist: check the path of the data")
    try:
        files = _find(folder) if is_remote(folder) else _walk(folder)
    except OSError as error:
        raise CocaError(f"{folder} cannot be listed ({error}): check the address and your right to read it") from error
    if not files and is_remote(folder):
        raise CocaError(f"there is nothing below {folder}: check the address of the data")
    return sorted(files, key=lambda file: file.name)


def stat(path: str) -> File | None:
    """The file, named by the last part of its path; None if there is no such file."""
    name = path.rstrip("/").rpartition("/")[2]
    try:
        if not is_remote(path):
            status = os.stat(path)
            return File(path, name, status.st_size, str(status.st_mtime_ns)) if os.path.isfile(path) else None
        system, inner = remote.system_of(path)
        return _of_info(path, name, remote.persistently(path, lambda: system.info(inner)))
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None


def stat_each(paths: Sequence[str]) -> list[File | None]:
    """`stat` of several paths, remote ones concurrently."""
    files = _each(stat, paths, any(map(is_remote, paths)))
    return [None if isinstance(file, ReadError) else file for file in files]


def read(path: str, largest: int = LARGEST) -> bytes:
    """The whole file, of at most `largest` bytes; ReadError: "missing file", "file too large", "unreadable file"."""
    with _read_errors("unreadable file"):
        if is_remote(path):
            data = remote.read_range(path, 0, largest + 1)
            if len(data) > largest:
                raise ReadError("file too large")
            return data
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > largest:
                raise ReadError("file too large")
            return file.read()


def read_each(paths: Sequence[str]) -> list[bytes | ReadError]:
    """Several whole files, remote ones concurrently, with a ReadError in place of each that `read` would raise."""
    return _each(read, paths, any(map(is_remote, paths)))


def read_range(path: str, offset: int, size: int, cause: str = "unreadable file") -> bytes:
    """`size` bytes from `offset` on, fewer at the end of the file; ReadError: "missing file", or `cause`."""
    with _read_errors(cause):
        if is_remote(path):
            return remote.read_range(path, offset, offset + size)
        # Opened anew each time: a thousand shards would exceed the limit on open files.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)


def read_spans(path: str, spans: Sequence[tuple[int, int]], cause: str = "unreadable file") -> list[bytes | ReadError]:
    """The bytes of each (offset, size), neighbours in one read; a ReadError in place of a span that cannot be read.

    Its cause is "missing file", "member too large" (than `LARGEST`) or `cause`.
    """
    result: list[bytes | ReadError] = [ReadError("member too large")] * len(spans)
    runs: list[list[tuple[int, int, int]]] = []
    gap, end = _REMOTE_GAP if is_remote(path) else _GAP, 0
    for offset, size, place in sorted((*span, place) for place, span in enumerate(spans) if span[1] <= LARGEST):
        if not runs or offset > end + gap or offset + size - runs[-1][0][0] > _RUN:
            runs.append([])
            end = offset
        runs[-1].append((offset, size, place))
        end = max(end, offset + size)

    def run_bytes(run: list[tuple[int, int, int]]) -> bytes:
        start = run[0][0]
        return read_range(path, start, max(offset + size for offset, size, _ in run) - start, cause)

    for run, data in zip(runs, _each(run_bytes, runs, is_remote(path)), strict=True):
        if isinstance(data, bytes):
            start = run[0][0]
            parts: list[bytes | ReadError] = [data[offset - start : offset - start + size] for offset, size, _ in run]
        elif data.cause == cause and len(run) > 1 and not is_remote(path):
            # A bad sector must not spoil the records that are read with it.
            parts = _each(lambda span: run_bytes([span]), run, False)
        else:
            parts = [data] * len(run)
        for (_, size, place), part in zip(run, parts, strict=True):
            result[place] = part if isinstance(part, ReadError) or len(part) == size else ReadError(cause)
    return result


def open_file(file: File) -> BinaryIO:
    """The file, opened for reading; raises OSError, also later if it cannot be read. Remote files are read ahead."""
    return remote.open_file(file.path, file.size, _BUFFER) if is_remote(file.path) else open(file.path, "rb")


def write_atomically(path: str | os.PathLike, data: str | bytes, errors: str = "strict") -> None:
    """Writes a file, and its folder if missing, so that readers see the old contents or the new ones, whole.

    Text is encoded as UTF-8, with `errors` as in `str.encode`, for file names. Raises OSError if it cannot be written.
    """
    path, content = os.fspath(path), data.encode("utf-8", errors) if isinstance(data, str) else data
    if is_remote(path):
        system, inner = remote.system_of(path)
        remote.persistently(path, lambda: system.pipe_file(inner, content))  # an object appears once it is complete
        return
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from others who share the folder
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def is_hidden(name: str) -> bool:
    """Whether a part of a relative path begins with a dot, as in .ipynb_checkpoints/a.jpg."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def is_writable(folder: str) -> bool:
    """Whether files may be put into a local folder; one without any write permission is respected, even by root."""
    try:
        return bool(os.stat(folder).st_mode & 0o222) and os.access(folder, os.W_OK)
    except OSError:
        return False


def digest(*parts: str) -> str:
    """16 hex digits that depend on every part."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def cache_folder() -> str:
    """The folder of files that can be made again: COCA_CACHE (possibly an address), or ~/.cache/coca_jax."""
    return os.environ.get("COCA_CACHE") or os.path.expanduser("~/.cache/coca_jax")


@contextlib.contextmanager
def _read_errors(cause: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ReadError("missing file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ReadError(cause) from error


def _walk(folder: str) -> list[File]:
    root, files, seen = os.path.realpath(folder), list[File](), set[tuple[int, int]]()
    folders, links = [(folder, "")], list[tuple[str, str]]()
    while folders or links:
        # Links come last, so that a folder below `folder` is listed by its own path.
        place, prefix = folders.pop() if folders else links.pop(0)
        identity = os.stat(place)
        if (identity.st_dev, identity.st_ino) in seen:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_dir():
                    target = os.path.realpath(entry.path)
                    if os.path.commonpath([root, target]) != target:  # not a way back up, out of `folder`
                        links.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file():
                    with contextlib.suppress(FileNotFoundError):  # removed just now
                        status = entry.stat()
                        files.append(File(entry.path, prefix + entry.name, status.st_size, str(status.st_mtime_ns)))
                elif not os.path.exists(entry.path):
                    files.append(File(entry.path, prefix + entry.name, -1, ""))
    return files


def _find(folder: str) -> list[File]:
    infos = remote.find(folder).items()
    files = [_of_info(f"{folder.rstrip('/')}/{name}", name, info) for name, info in infos if not is_hidden(name)]
    return [file for file in files if file]


def _of_info(path: str, name: str, info: dict[str, Any]) -> File | None:
    if info.get("type") == "directory":
        return None
    version: Any = next((info[key] for key in _VERSIONS if info.get(key)), "")
    if hasattr(version, "timestamp"):  # some drivers give a date in listings and seconds for single files
        version = version.timestamp()
    return File(path, name, int(info.get("size") or 0), str(version))


def _each(work: Callable[[Any], _T], things: Sequence[Any], together: bool) -> list[_T | ReadError]:
    def careful(thing: Any) -> _T | ReadError:
        try:
            return work(thing)
        except ReadError as error:
            return error

    if together and len(things) > 1:
        with concurrent.futures.ThreadPoolExecutor(min(_PARALLEL, len(things))) as pool:
            return list(pool.map(careful, things))
    return [careful(thing) for thing in things]
