"""METEOR and SPICE, which are Java programs: the package pycocoevalcap brings them.

METEOR: Denkowski and Lavie, "Meteor Universal", WMT 2014 (version 1.5). SPICE: Anderson et al., ECCV 2016 (arXiv
1607.08822). Both read tokenised captions. Of pycocoevalcap only the programs (.jar) are used: its Python waits forever
for a METEOR that has failed once.
"""

import contextlib
import importlib.util
import json
import logging
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence

from coca_jax.errors import CocaError
from coca_jax.storage.files import cache_folder, is_remote

_log = logging.getLogger(__name__)

_METEOR = ("-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
_SPICE = ("-Xmx8G", "-jar", "spice-1.0.jar")
_JARS = {"meteor": ("meteor-1.5.jar",), "spice": ("spice-1.0.jar",)}
_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_PARSER_ARCHIVE = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_NEWEST_FOR_SPICE = 14  # it writes its results with the JavaScript engine, which Java 15 no longer has

# Seconds after which a program counts as hanging: (at least, more for each caption). Tens of times what they take.
_PATIENCE = {"meteor": (600, 0.05), "spice": (1800, 0.2)}
_SHOWN = 300  # characters of a program's messages in an error


def check_available(name: str) -> None:
    """Checks that "meteor" or "spice" can run on this machine.

    Raises:
      CocaError: it cannot; the sentence names what to install.
    """
    program, folder = find_java(), package_folder()
    lacking: list[str] = []
    or_without = f"or leave out the metric {name!r}"
    if program is None:
        package = "openjdk-11-jre-headless" if name == "spice" else "default-jre-headless"
        lacking.append(f"a Java runtime (on Debian and Ubuntu: apt-get install {package})")
    if folder is None:
        lacking.append("pycocoevalcap (pip install pycocoevalcap)")
    if program is None or folder is None:
        raise CocaError(f"{name.upper()} needs {' and '.join(lacking)}: install that, {or_without}")
    missing = [jar for jar in _JARS[name] if not (folder / name / jar).is_file()]
    if missing:
        raise CocaError(f"{folder / name} lacks {missing[0]}: install pycocoevalcap anew, {or_without}")
    if name == "spice":
        _check_spice(program, folder / name / "lib", or_without)


def _check_spice(program: str, lib: pathlib.Path, or_without: str) -> None:
    version = _java_version(program)
    if version > _NEWEST_FOR_SPICE:
        raise CocaError(
            f"SPICE needs a Java of version 8 to {_NEWEST_FOR_SPICE} and {program} is {version}: install 11 and name "
            f"its folder with JAVA_HOME, {or_without}"
        )
    missing = [jar for jar in _PARSER if not (lib / jar).is_file()]
    if missing:
        raise CocaError(
            f"SPICE needs Stanford's parser: put {' and '.join(missing)} from {_PARSER_ARCHIVE} (400 MB) into {lib}, "
            f"{or_without}"
        )


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of the corpus.

    Raises:
      CocaError: Java, the package or the program fails.
    """
    questions = [
        " ||| ".join(["SCORE", *map(_segment, own), _segment(candidate)])
        for candidate, own in zip(candidates, references, strict=True)
    ]
    # First the counts of each caption, then the scores of all counts: neither program waits for the other in between.
    seconds = _patience("meteor", sum(len(own) + 1 for own in references))
    counts = _meteor(questions, len(questions), seconds)
    *_, corpus = _meteor([" ||| ".join(["EVAL", *counts])], len(questions) + 1, seconds)
    try:
        return float(corpus)
    except ValueError as error:
        raise CocaError(f"METEOR's Java program gave no score ({error}): leave out the metric 'meteor'") from error


def _meteor(lines: Sequence[str], wanted: int, seconds: float) -> list[str]:
    text = "".join(f"{line}\n" for line in lines)
    answers = _run("METEOR", _METEOR, _folder("meteor"), text, seconds)
    if len(answers) != wanted:
        raise CocaError(
            f"METEOR's Java program gave {len(answers)} lines instead of {wanted}: install pycocoevalcap anew, or "
            f"leave out the metric 'meteor'"
        )
    return answers


def _segment(caption: str) -> str:
    """The caption without METEOR's separators, `|||` and a line's end."""
    return caption.replace("|||", " ").replace("\n", " ").replace("\r", " ")


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """SPICE's F-score, the mean over captions. Parses are kept for another time.

    Raises:
      CocaError: Java, the package or the program fails.
    """
    captions = sum(len(own) + 1 for own in references)
    _log.info("SPICE parses %s captions, which takes minutes the first time", f"{captions:,}")
    with tempfile.TemporaryDirectory() as temporary:
        given, result = pathlib.Path(temporary, "captions.json"), pathlib.Path(temporary, "scores.json")
        rows = [
            {"image_id": i, "test": candidate, "refs": list(own)}
            for i, (candidate, own) in enumerate(zip(candidates, references, strict=True))
        ]
        given.write_text(json.dumps(rows), encoding="ascii")
        options = ("-cache", _parses(temporary), "-out", str(result), "-silent")
        _run("SPICE", (*_SPICE, str(given), *options), _folder("spice"), "", _patience("spice", captions))
        try:
            answers = json.loads(result.read_text(encoding="utf-8"))
            scores = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in answers}
            return statistics.fmean(scores[i] for i in range(len(candidates)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CocaError(
                f"SPICE's Java program gave no scores ({type(error).__name__}: {error}): leave out the metric 'spice'"
            ) from error


def _parses(temporary: str) -> str:
    """The folder of earlier parses: on this machine's disk, for it is mapped into memory."""
    if not is_remote(cache_folder()):
        folder = os.path.abspath(os.path.join(cache_folder(), "spice"))  # SPICE runs in another folder
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return temporary


def _folder(name: str) -> pathlib.Path:
    folder = package_folder()
    if folder is None:
        raise CocaError(f"{name.upper()} needs pycocoevalcap: pip install pycocoevalcap")
    return folder / name


def _patience(name: str, captions: int) -> float:
    start, each = _PATIENCE[name]
    return start + each * captions


def find_java() -> str | None:
    """The program of JAVA_HOME, or else the one on the PATH; absolute, for programs that run in folders of their own."""
    home = os.environ.get("JAVA_HOME")
    program = (shutil.which("java", path=os.path.join(home, "bin")) if home else None) or shutil.which("java")
    return os.path.abspath(program) if program else None


def _java_version(java: str) -> int:
    """8, 11, 17, …; 0 if it is unknown."""
    try:
        done = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(rb'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(match[1]) if match else 0


def package_folder() -> pathlib.Path | None:
    """The folder of the installed pycocoevalcap, which is not imported."""
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return pathlib.Path(folders[0]) if folders else None


def _run(name: str, arguments: Sequence[str], folder: pathlib.Path, text: str, seconds: float) -> list[str]:
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
        # Files: an unread pipe stops the program, and one that its children keep open stops the reader.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
            given.write(text.encode("utf-8", "replace"))
            given.seek(0)
            command = [find_java() or "java", *arguments]
            process = subprocess.Popen(command, cwd=folder, stdin=given, stdout=printed, stderr=errors)
            try:
                status = process.wait(seconds)
            finally:
                process.kill()  # no effect if it has ended
                process.wait()
            printed.seek(0)
            errors.seek(0)
            lines, messages = (file.read().decode("utf-8", "replace").splitlines() for file in (printed, errors))
    except subprocess.TimeoutExpired:
        raise CocaError(
            f"{name}'s Java program was ended after {seconds / 60:.0f} minutes without a result: see that the machine "
            f"is not busy with something else, {or_without}"
        ) from None
    except OSError as error:
        raise CocaError(f"{name}'s Java program could not be run ({error}): put that right, {or_without}") from error
    if status:
        cause = _cause(status, messages)
        lacks_memory = status == -9 or re.search(r"heap|memory", cause, re.IGNORECASE)
        advice = "give it more memory (_JAVA_OPTIONS=-Xmx… sets its bound)" if lacks_memory else "put that right"
        raise CocaError(f"{name}'s Java program failed ({cause}): {advice}, {or_without}")
    return lines


def _cause(status: int, messages: Sequence[str]) -> str:
    """The last lines of a program that failed, without its stack."""
    lines = [line.strip() for line in messages]
    lines = [line for line in lines if line and not re.match(r"at |\.\.\. \d+ more|NOTE: Picked up|Picked up", line)]
    return " ".join(lines[-3:])[:_SHOWN] or f"status {status}, without a word"
