"""METEOR and SPICE with a pycocoevalcap of the test's own; METEOR also with the real one, where it is installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types

import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.caption_metrics import external
from coca_jax.evaluation.caption_metrics.scores import score

CANDIDATES = {3: "A dog.", 1: "Two cats!"}
REFERENCES = {1: ["two cats", "Cats."], 3: ["a dog"]}
INSTALLED = importlib.util.find_spec("pycocoevalcap") is not None and shutil.which("java") is not None


@pytest.fixture
def has(monkeypatch):
    """Says what is installed: `has(java=True, package=False)`."""

    def say(java, package):
        monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java" if java or name != "java" else None)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: object() if package or name != "pycocoevalcap" else None
        )

    return say


@pytest.fixture
def pycocoevalcap(monkeypatch, has):
    """A scorer class takes the place of both of pycocoevalcap's."""
    has(java=True, package=True)

    def put(scorer):
        for name in ("meteor", "spice"):
            for module in ("pycocoevalcap", f"pycocoevalcap.{name}", f"pycocoevalcap.{name}.{name}"):
                monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
            setattr(sys.modules[f"pycocoevalcap.{name}.{name}"], name.capitalize(), scorer)

    return put


@pytest.mark.parametrize("name", ["meteor", "spice"])
@pytest.mark.parametrize(
    "java, package, words",
    [
        (False, True, ["Java runtime"]),
        (True, False, ["pip install pycocoevalcap"]),
        (False, False, ["Java runtime", " and ", "pip install pycocoevalcap"]),
    ],
)
def test_what_is_not_installed_is_named(has, name, java, package, words):
    has(java, package)
    with pytest.raises(CocaError) as error:
        score(CANDIDATES, REFERENCES, ["bleu", name])
    assert all(word in str(error.value) for word in [name.upper(), *words])
    assert ("Java" in str(error.value)) != java


class Lengths:
    """Scores a caption with the length of its first reference."""

    def compute_score(self, references, candidates):
        assert references.keys() == candidates.keys() and all(len(own) == 1 for own in candidates.values())
        assert candidates == {0: ["two cats"], 1: ["a dog"]}  # tokenised, in the references' order
        rows = [len(own[0].split()) / 10 + len(own) for own in references.values()]
        return sum(rows), rows


class Tuples(Lengths):
    def compute_score(self, references, candidates):
        corpus, rows = super().compute_score(references, candidates)
        return corpus, [{"All": {"f": row, "pr": 0.0}} for row in rows]


@pytest.mark.parametrize("name, scorer", [("meteor", Lengths), ("spice", Tuples)])
def test_each_image_gets_its_own_score(pycocoevalcap, name, scorer):
    pycocoevalcap(scorer)
    scores = score(CANDIDATES, REFERENCES, [name])
    assert scores.corpus == pytest.approx({name: 2.2 + 1.2})
    assert scores.per_image == {1: {name: pytest.approx(2.2)}, 3: {name: pytest.approx(1.2)}}


@pytest.mark.parametrize("own", [None, "-Xmx8G"])
def test_spice_runs_on_a_java_that_keeps_its_classes_to_itself(pycocoevalcap, monkeypatch, own):
    if own is None:
        monkeypatch.delenv("JDK_JAVA_OPTIONS", raising=False)
    else:
        monkeypatch.setenv("JDK_JAVA_OPTIONS", own)
    seen = []

    class Spice(Tuples):
        def __init__(self):
            seen.extend(os.environ["JDK_JAVA_OPTIONS"].split())

    pycocoevalcap(Spice)
    score(CANDIDATES, REFERENCES, ["spice"])
    assert "--add-opens=java.base/java.lang=ALL-UNNAMED" in seen
    assert own is None or own in seen
    assert os.environ.get("JDK_JAVA_OPTIONS") == own


@pytest.mark.parametrize(
    "error, sentence",
    [
        (subprocess.CalledProcessError(1, "java"), "Java program failed"),
        (BrokenPipeError("pipe"), "Java program failed"),
        (external.urllib.error.URLError("no network"), "could not download its parser .no network."),
    ],
)
def test_a_failing_program_is_one_sentence(pycocoevalcap, error, sentence):
    def fail():
        raise error

    pycocoevalcap(fail)
    with pytest.raises(CocaError, match=sentence):
        score(CANDIDATES, REFERENCES, ["spice"])


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="METEOR needs pycocoevalcap and Java")
@pytest.mark.filterwarnings("ignore")  # it leaves its pipes open
def test_meteor_is_the_published_one(shared_data):
    folder = shared_data / "data" / "caption_metrics"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    candidates = {image: own[0] for image, own in json.loads((folder / "res.json").read_text()).items()}
    references = json.loads((folder / "gts.json").read_text())
    (expected,) = json.loads((folder / "expected_scores.json").read_text()).values()
    figure = score(candidates, references, ["meteor"], tokenizer=str).corpus["meteor"]
    assert figure == pytest.approx(expected["METEOR"], abs=1e-9)
