"""Names of image files in the rows of a table."""

import os
import posixpath
import re
import urllib.parse
from collections.abc import Sequence

from coca_jax.storage.files import is_remote

_DRIVE = re.compile(r"[A-Za-z]:/")  # of a Windows path


class ImageFiles:
    """The files that a table may name: those below its folder, or below others that it is known to speak of."""

    def __init__(self, path: str, others: Sequence[str] = ()):
        self.folder = os.path.dirname(path) or "."
        roots = [place.rstrip("/") for place in (self.folder, *others)]
        if not is_remote(path):
            roots = [path for root in roots for path in (os.path.abspath(root), os.path.realpath(root))]
        self._roots = tuple(f"{root.rstrip('/')}/" for root in dict.fromkeys(roots))

    def relative(self, name: str) -> str | None:
        """The name relative to the folder; None if it leaves it."""
        path = name.replace("\\", "/")
        if path.startswith("file:///"):
            path = urllib.parse.unquote(path.removeprefix("file://"))
        path = path if "://" in path else posixpath.normpath(path)
        path = path.removeprefix(next((root for root in self._roots if path.startswith(root)), ""))
        is_outside = path.startswith("/") or "://" in path or ".." in path.split("/") or "\0" in path
        return None if is_outside or _DRIVE.match(path) else path
