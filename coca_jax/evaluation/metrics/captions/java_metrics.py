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
_JARS = {"meteor": "meteor-1.5.jar", "spice": "spice-1.0.jar"}
_DEBIAN = {"meteor": "default-jre-headless", "spice": "openjdk-11-jre-headless"}
_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_PARSER_ARCHIVE = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_NEWEST_FOR_SPICE = 14  # it writes its results with the JavaScript engine, which Java 15 no longer has

# Seconds after which a program counts as hanging: (at least, more for each caption). Tens of times what they take.
_PATIENCE = {"meteor": (600, 0.05), "spice": (1800, 0.2)}
_SHOWN = 300  # characters of a program's messages in an error


def check_available(name: str) -> tuple[str, pathlib.Path]:
    """The paths of Java and of the folder of "meteor" or "spice".

    Raises:
      CocaError: it cannot run on this machine; the sentence names what to install.
    """
    java, package = find_java(), package_folder()
    if java is None or package is None:
        runtime = "" if java else f"a Java runtime (on Debian and Ubuntu: apt-get install {_DEBIAN[name]})"
        programs = "" if package else "pycocoevalcap (pip install pycocoevalcap)"
        lacking = " and ".join(filter(None, (runtime, programs)))
        raise _unusable(name, f"{name.upper()} needs {lacking}: install that")
    folder = package / name
    if not (folder / _JARS[name]).is_file():
        raise _unusable(name, f"{folder} lacks {_JARS[name]}: install pycocoevalcap anew")
    if name == "spice":
        lib = folder / "lib"
        if (version := _java_version(java)) > _NEWEST_FOR_SPICE:
            needed = f"SPICE needs a Java of version 8 to {_NEWEST_FOR_SPICE} and {java} is {version}"
            raise _unusable("spice", f"{needed}: install 11 and name its folder with JAVA_HOME")
        if missing := " and ".join(jar for jar in _PARSER if not (lib / jar).is_file()):
            source = f"{_PARSER_ARCHIVE} (400 MB)"
            raise _unusable("spice", f"SPICE needs Stanford's parser: put {missing} from {source} into {lib}")
    return java, folder


def _unusable(name: str, problem: str) -> CocaError:
    return CocaError(f"{problem}, or leave out the metric {name!r}")


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
    captions = sum(len(own) + 1 for own in references)
    counts = _meteor(questions, len(questions), captions)
    *_, corpus = _meteor([" ||| ".join(["EVAL", *counts])], len(questions) + 1, captions)
    try:
        return float(corpus)
    except ValueError as error:
        raise _unusable("meteor", f"METEOR's Java program gave no score ({error}): install it anew") from error


def _meteor(lines: Sequence[str], wanted: int, captions: int) -> list[str]:
    answers = _run("meteor", _METEOR, captions, "".join(f"{line}\n" for line in lines))
    if len(answers) != wanted:
        gave = f"METEOR's Java program gave {len(answers)} lines instead of {wanted}"
        raise _unusable("meteor", f"{gave}: install pycocoevalcap anew")
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
        _run("spice", (*_SPICE, str(given), *options), captions)
        try:
            answers = json.loads(result.read_text(encoding="utf-8"))
            scores = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in answers}
            return statistics.fmean(scores[i] for i in range(len(candidates)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise _unusable("spice", f"SPICE's Java program gave no scores ({reason}): install it anew") from error


def _parses(temporary: str) -> str:
    """The folder of earlier parses: on this machine's disk, for it is mapped into memory."""
    if not is_remote(cache_folder()):
        folder = os.path.abspath(os.path.join(cache_folder(), "spice"))  # SPICE runs in another folder
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return temporary


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


def _run(name: str, arguments: Sequence[str], captions: int, text: str = "") -> list[str]:
    """The lines that Java prints, given its arguments and the `text` on its standard input; errors as `meteor`."""
    java, folder = check_available(name)
    start, each = _PATIENCE[name]
    seconds = start + each * captions
    title = f"{name.upper()}'s Java program"
    try:
        # Files: an unread pipe stops the program, and one that its children keep open stops the reader.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
            given.write(text.encode("utf-8", "replace"))
            given.seek(0)
            command = [java, *arguments]
            done = subprocess.run(command, cwd=folder, stdin=given, stdout=printed, stderr=errors, timeout=seconds)
            printed.seek(0)
            errors.seek(0)
            lines, messages = (file.read().decode("utf-8", "replace").splitlines() for file in (printed, errors))
    except subprocess.TimeoutExpired:
        ended = f"{title} was ended after {seconds / 60:.0f} minutes without a result"
        raise _unusable(name, f"{ended}: see that the machine is not busy with something else") from None
    except OSError as error:
        raise _unusable(name, f"{title} could not be run ({error}): put that right") from error
    if done.returncode:
        cause = _cause(done.returncode, messages)
        lacks_memory = done.returncode == -9 or re.search(r"heap|memory", cause, re.IGNORECASE)
        advice = "give it more memory (_JAVA_OPTIONS=-Xmx… sets its bound)" if lacks_memory else "put that right"
        raise _unusable(name, f"{title} failed ({cause}): {advice}")
    return lines


def _cause(status: int, messages: Sequence[str]) -> str:
    """The last lines of a program that failed, without its stack."""
    lines = [line.strip() for line in messages]
    lines = [line for line in lines if line and not re.match(r"at |\.\.\. \d+ more|NOTE: Picked up|Picked up", line)]
    return " ".join(lines[-3:])[:_SHOWN] or f"status {status}, without a word"
