"""Text files that a reader never sees half written, on a disk or in a bucket."""

import os
import tempfile
import typing

if typing.TYPE_CHECKING:
    from etils import epath


def is_remote(path: str | os.PathLike) -> bool:
    """Whether the path is of a bucket, such as gs://bucket/run."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike) -> "epath.Path":
    """An absolute path of a disk, or one of a bucket: pathlib's interface for both."""
    from etils import epath  # comes with orbax; imported here, for this file is on everybody's way

    return epath.Path(path if is_remote(path) else os.path.abspath(path))


def write_atomically(path: str | os.PathLike, text: str, errors: str = "strict") -> None:
    """Writes a file so that, whatever happens, `path` holds the old text or the new one, whole.

    Args:
      errors: what becomes of characters that UTF-8 has not, such as those of file names; see `str.encode`.
    """
    path, data = os.fspath(path), text.encode("utf-8", errors)
    if is_remote(path):
        as_path(path).write_bytes(data)  # an object appears when all of it has arrived
        return
    # On a disk: written beside it, then renamed.
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from whoever serves or collects it
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
