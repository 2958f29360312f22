"""Text files that a reader never sees half written."""

import os
import tempfile


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes beside `path` and renames: whatever happens, `path` holds the old text or the new one, whole."""
    path = os.fspath(path)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".writing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from whoever serves or collects it
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
