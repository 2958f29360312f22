"""METEOR and SPICE, which are Java programs: pycocoevalcap brings and runs them.

METEOR: Denkowski and Lavie, "Meteor Universal", WMT 2014 (version 1.5). SPICE: Anderson et al., ECCV 2016 (arXiv
1607.08822). Both read tokenised captions.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import urllib.error
from collections.abc import Callable, Iterator, Sequence

from coca_jax.errors import CocaError

# (candidates, references of each) -> (the corpus' score, each caption's)
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[float, list[float]]]

# SPICE stores its parses with a library that looks into Java's own classes, which Java 16 and later forbid by default
# ("InaccessibleObjectException"). Java 9 and later read this variable; Java 8 neither knows nor needs it.
_OPENED = ("lang", "util", "util.concurrent", "util.concurrent.atomic", "math", "net", "text", "io")
_JAVA_OPTIONS = " ".join(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED)


def check_available(name: str) -> None:
    """Raises a CocaError that says what to install where "meteor" or "spice" cannot run here."""
    lacking = []
    if shutil.which("java") is None:
        lacking.append("a Java runtime (on Debian and Ubuntu: apt-get install default-jre-headless)")
    if importlib.util.find_spec("pycocoevalcap") is None:
        lacking.append("pycocoevalcap (pip install pycocoevalcap)")
    if lacking:
        raise CocaError(f"{name.upper()} needs {' and '.join(lacking)}: install that, or leave out the metric {name!r}")


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR of the corpus and of each caption."""
    check_available("meteor")
    from pycocoevalcap.meteor.meteor import Meteor

    return _run("meteor", Meteor, candidates, references)


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """SPICE's F-score: the mean over captions, and of each. The first use downloads a parser of about 400 MB."""
    check_available("spice")
    from pycocoevalcap.spice.spice import Spice

    with _java_options(_JAVA_OPTIONS):
        corpus, rows = _run("spice", Spice, candidates, references)
    return corpus, [row["All"]["f"] for row in rows]


@contextlib.contextmanager
def _java_options(options: str) -> Iterator[None]:
    """Starts Java programs with these options on top of the user's own."""
    before = os.environ.get("JDK_JAVA_OPTIONS")
    os.environ["JDK_JAVA_OPTIONS"] = f"{before} {options}" if before else options
    try:
        yield
    finally:
        if before is None:
            del os.environ["JDK_JAVA_OPTIONS"]
        else:
            os.environ["JDK_JAVA_OPTIONS"] = before


def _run(name: str, scorer: Callable, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple:
    ids = range(len(candidates))
    try:
        corpus, rows = scorer().compute_score({i: list(references[i]) for i in ids}, {i: [candidates[i]] for i in ids})
    except urllib.error.URLError as error:
        raise CocaError(f"{name.upper()} could not download its parser ({error.reason}): run it once online") from error
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise CocaError(f"{name.upper()}'s Java program failed ({error}): see its output, or leave it out") from error
    return float(corpus), list(rows)
