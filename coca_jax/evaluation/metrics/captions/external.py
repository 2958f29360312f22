"""METEOR and SPICE, which are Java programs: pycocoevalcap brings them.

METEOR: Denkowski and Lavie, "Meteor Universal", WMT 2014 (version 1.5). SPICE: Anderson et al., ECCV 2016 (arXiv
1607.08822). Both read tokenised captions.
"""

import contextlib
import json
import logging
import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions import java
from coca_jax.storage.files import cache_folder, is_remote

_log = logging.getLogger(__name__)

# (candidates, references of each) -> (the corpus' score, each caption's)
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[float, list[float]]]

_METEOR = ("-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
_SPICE = ("-Xmx8G", "-jar", "spice-1.0.jar")
_JARS = {"meteor": ("meteor-1.5.jar",), "spice": ("spice-1.0.jar",)}
_PARSER = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_PARSER_ARCHIVE = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_NEWEST_FOR_SPICE = 14  # it writes its results with the JavaScript engine, which Java 15 has no more

# Seconds after which a program is held to hang: to begin with, and for each caption. Tens of times what they take.
_PATIENCE = {"meteor": (600, 0.05), "spice": (1800, 0.2)}


def check_available(name: str) -> None:
    """Raises a CocaError that says what to install where "meteor" or "spice" cannot run here."""
    program, folder, lacking = java.find_java(), java.package_folder(), []
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
    version = java.java_version(program)
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


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR of the corpus and of each caption, where it is available."""
    asked = [
        " ||| ".join(["SCORE", *map(_segment, own), _segment(candidate)])
        for candidate, own in zip(candidates, references, strict=True)
    ]
    # First the counts of each caption, then the scores of all counts: nobody waits for the other in between.
    seconds = _patience("meteor", sum(len(own) + 1 for own in references))
    counts = _meteor(asked, len(asked), seconds)
    found = _meteor([" ||| ".join(["EVAL", *counts])], len(asked) + 1, seconds)
    try:
        *rows, corpus = map(float, found)
    except ValueError as error:
        raise CocaError(f"METEOR's Java program gave no score ({error}): leave out the metric 'meteor'") from error
    return corpus, rows


def _meteor(lines: Sequence[str], wanted: int, seconds: float) -> list[str]:
    text = "".join(f"{line}\n" for line in lines)
    answers = java.run("METEOR", _METEOR, _folder("meteor"), text, seconds)
    if len(answers) != wanted:
        raise CocaError(
            f"METEOR's Java program gave {len(answers)} lines instead of {wanted}: install pycocoevalcap anew, or "
            f"leave out the metric 'meteor'"
        )
    return answers


def _segment(caption: str) -> str:
    """Without what ends a caption in METEOR's protocol, `|||` and a line's end."""
    return caption.replace("|||", " ").replace("\n", " ").replace("\r", " ")


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """SPICE's F-score, where it is available: the mean over captions, and of each. Parses are kept for another time."""
    captions = sum(len(own) + 1 for own in references)
    _log.info("SPICE parses %s captions, which takes minutes the first time", f"{captions:,}")
    with tempfile.TemporaryDirectory() as temporary:
        given, found = os.path.join(temporary, "captions.json"), os.path.join(temporary, "scores.json")
        rows = [
            {"image_id": i, "test": candidate, "refs": list(own)}
            for i, (candidate, own) in enumerate(zip(candidates, references, strict=True))
        ]
        pathlib.Path(given).write_text(json.dumps(rows), encoding="ascii")
        options = ("-cache", _parses(temporary), "-out", found, "-silent")
        java.run("SPICE", (*_SPICE, given, *options), _folder("spice"), "", _patience("spice", captions))
        try:
            answers = json.loads(pathlib.Path(found).read_text(encoding="utf-8"))
            scores = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in answers}
            rows = [scores[i] for i in range(len(candidates))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CocaError(
                f"SPICE's Java program gave no scores ({type(error).__name__}: {error}): leave out the metric 'spice'"
            ) from error
    return statistics.fmean(rows), rows


def _parses(temporary: str) -> str:
    """The folder of what was parsed before: on this machine's disk, for it is mapped into memory."""
    if not is_remote(cache_folder()):
        folder = os.path.abspath(os.path.join(cache_folder(), "spice"))  # SPICE runs in another folder
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return temporary


def _folder(name: str) -> pathlib.Path:
    return java.package_folder() / name


def _patience(name: str, captions: int) -> float:
    start, each = _PATIENCE[name]
    return start + each * captions
