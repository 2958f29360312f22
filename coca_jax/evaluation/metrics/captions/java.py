"""Java programs of the package pycocoevalcap: whether they can run here, and one run of one.

Of pycocoevalcap only the programs (.jar) are used: its Python waits forever for a METEOR that has failed once.
"""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from coca_jax.errors import CocaError

_SHOWN = 300  # characters of what a program says of its failure


def find_java() -> str | None:
    """That of JAVA_HOME, or else the one on the PATH; absolute, for programs run in folders of their own."""
    home = os.environ.get("JAVA_HOME")
    found = (shutil.which("java", path=os.path.join(home, "bin")) if home else None) or shutil.which("java")
    return os.path.abspath(found) if found else None


def java_version(java: str) -> int:
    """8, 11, 17, …; 0 where it does not say."""
    try:
        done = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(rb'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found[1]) if found else 0


def package_folder() -> pathlib.Path | None:
    """Where pycocoevalcap is installed; it is not imported."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return pathlib.Path(folders[0]) if folders else None


def run(name: str, arguments: Sequence[str], folder: pathlib.Path, text: str, seconds: float) -> list[str]:
    """The lines that a program prints.

    Args:
      name: of the metric, for the error.
      arguments: of `java`.
      folder: which the program runs in.
      text: on its standard input.
      seconds: after which it is killed.

    Raises:
      CocaError: it cannot be started, fails, or takes longer.
    """
    or_without = f"or leave out the metric {name.lower()!r}"
    try:
        # Files: a pipe that nobody reads stops the program, and one that its children keep open stops the reader.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
            given.write(text.encode("utf-8", "replace"))
            given.seek(0)
            process = subprocess.Popen(
                [find_java() or "java", *arguments], cwd=folder, stdin=given, stdout=printed, stderr=said
            )
            try:
                status = process.wait(seconds)
            finally:
                process.kill()  # nothing, where it has ended
                process.wait()
            printed.seek(0)
            said.seek(0)
            lines, complaints = (file.read().decode("utf-8", "replace").splitlines() for file in (printed, said))
    except subprocess.TimeoutExpired:
        raise CocaError(
            f"{name}'s Java program was ended after {seconds / 60:.0f} minutes without a result: see that the machine "
            f"is not busy with something else, {or_without}"
        ) from None
    except OSError as error:
        raise CocaError(f"{name}'s Java program could not be run ({error}): put that right, {or_without}") from error
    if status:
        cause = _cause(status, complaints)
        lacks_memory = status == -9 or re.search(r"heap|memory", cause, re.IGNORECASE)
        advice = "give it more memory (_JAVA_OPTIONS=-Xmx… sets its bound)" if lacks_memory else "put that right"
        raise CocaError(f"{name}'s Java program failed ({cause}): {advice}, {or_without}")
    return lines


def _cause(status: int, complaints: Sequence[str]) -> str:
    """The last words of a program that failed, without its stack."""
    lines = [line.strip() for line in complaints]
    lines = [line for line in lines if line and not re.match(r"at |\.\.\. \d+ more|NOTE: Picked up|Picked up", line)]
    return " ".join(lines[-3:])[:_SHOWN] or f"status {status}, without a word"
