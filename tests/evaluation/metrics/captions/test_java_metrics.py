"""METEOR and SPICE with a Java of the test's own; with the real ones, where they are installed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions import java_metrics
from coca_jax.evaluation.metrics.captions.scores import score

CANDIDATES = ["Two cats!", "A dog."]
REFERENCES = [["two cats", "Cats."], ["a dog"]]

# Speaks METEOR's protocol: a caption's score is its words / 100 + its references / 10; the corpus' their sum.
METEOR = """
text = sys.stdin.buffer.read().decode("utf-8").replace("\\r", "\\n")
for kind, *parts in (line.split(" ||| ") for line in text.split("\\n")[:-1]):
    if kind == "SCORE":
        print(len(parts[-1].split()), len(parts) - 1)
    else:
        rows = [int(words) / 100 + int(count) / 10 for words, count in map(str.split, parts)]
        print(*rows, sum(rows), sep="\\n")
"""
# As SPICE is called; results in another order than the captions.
SPICE = """
given, out = sys.argv[4], sys.argv[sys.argv.index("-out") + 1]
rows = json.load(open(given))
f = lambda row: len(row["test"].split()) / 100 + len(row["refs"]) / 10
scores = [{"image_id": row["image_id"], "scores": {"All": {"f": f(row)}}} for row in rows]
json.dump(scores[::-1], open(out, "w"))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(program)` installs a package and a Java that runs `program`; returns the package's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("COCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    for folder in ("temporary", "bin"):
        (tmp_path / folder).mkdir()

    def install(program: str | None = "", version: str = "11.0.2", lacking: str = ""):
        package = tmp_path / "packages" / "pycocoevalcap"
        jars = [f"{name}/{jar}" for name, jar in java_metrics._JARS.items()]
        for jar in (*jars, *(f"spice/lib/{jar}" for jar in java_metrics._PARSER)):
            (package / jar).parent.mkdir(parents=True, exist_ok=True)
            if jar != lacking:
                (package / jar).touch()
        monkeypatch.setattr(java_metrics, "package_folder", lambda: None if lacking == "package" else package)
        if program is not None:
            write_java(tmp_path / "bin" / "java", program, version)
        return package

    return install


def write_java(path: pathlib.Path, program: str, version: str) -> None:
    say = f"if sys.argv[1] == '-version': sys.exit('openjdk version \"{version}\" 2020-01-01')\n"
    path.write_text(f"#!{sys.executable} -IS\nimport json, os, sys, time\n{say}{program}")
    path.chmod(0o755)


@pytest.mark.parametrize(
    "name, installed, words",
    [
        ("meteor", {"program": None}, "METEOR needs a Java runtime (on Debian and Ubuntu: apt-get install default-jre"),
        ("meteor", {"lacking": "package"}, "METEOR needs pycocoevalcap (pip install pycocoevalcap): install that, or"),
        ("spice", {"program": None, "lacking": "package"}, "-11-jre-headless) and pycocoevalcap (pip install"),
        ("meteor", {"lacking": "meteor/meteor-1.5.jar"}, "meteor lacks meteor-1.5.jar: install pycocoevalcap anew"),
        ("spice", {"version": "17.0.15"}, "of version 8 to 14 and {java} is 17: install 11 and name its folder"),
        (
            "spice",
            {"lacking": "spice/lib/stanford-corenlp-3.6.0-models.jar"},
            "put stanford-corenlp-3.6.0-models.jar from http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09"
            ".zip (400 MB) into {package}/spice/lib, or leave out the metric 'spice'",
        ),
    ],
)
def test_what_is_not_installed_is_named(machine, tmp_path, name, installed, words):
    package = machine(**installed)
    with pytest.raises(CocaError) as error:
        score(CANDIDATES, REFERENCES, ["bleu", name])
    assert words.format(java=tmp_path / "bin" / "java", package=package) in str(error.value)
    assert f"or leave out the metric '{name}'" in str(error.value)


@pytest.mark.parametrize("version, number", [("1.8.0_392", 8), ("11.0.2", 11), ("17", 17), ("none", 0)])
def test_the_version_of_java(machine, tmp_path, version, number):
    machine(version=version)
    assert java_metrics._java_version(str(tmp_path / "bin" / "java")) == number


def test_the_java_of_java_home_comes_first(machine, tmp_path, monkeypatch):
    machine()
    assert java_metrics.find_java() == str(tmp_path / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert java_metrics.find_java() == str(tmp_path / "bin" / "java")
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    write_java(tmp_path / "jdk" / "bin" / "java", "", "11")
    assert java_metrics.find_java() == str(tmp_path / "jdk" / "bin" / "java")


@pytest.mark.parametrize("name, program", [("meteor", METEOR), ("spice", SPICE)])
def test_a_corpus_gets_its_score(machine, tmp_path, name, program):
    machine(program)
    assert score(CANDIDATES, REFERENCES, [name]) == {name: pytest.approx(0.34 if name == "meteor" else 0.17)}
    assert not list((tmp_path / "temporary").iterdir())


def test_relative_folders_of_java_and_of_the_cache_are_those_of_the_caller(machine, tmp_path, monkeypatch):
    note = f"open({str(tmp_path / 'seen')!r}, 'w').write(os.path.abspath(sys.argv[sys.argv.index('-cache') + 1]))"
    machine(f"{note}\n{SPICE}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAVA_HOME", ".")
    monkeypatch.setenv("COCA_CACHE", "cache")
    assert score(CANDIDATES, REFERENCES, ["spice"]) == {"spice": pytest.approx(0.17)}
    assert (tmp_path / "seen").read_text() == str(tmp_path / "cache" / "spice")


def test_no_caption_can_break_the_protocol(machine):
    machine(METEOR)
    captions = ["zoë's 犬 ☕", "one ||| two", "one\ntwo\r\nthree\rfour", "", "half \ud83d", "|||", "a\x85b\u2028c"]
    references = [["one ||| two", "\n"]] * len(captions)
    each = [score([caption], [["a"]], ["meteor"], tokenizer=str)["meteor"] for caption in captions]
    assert each == pytest.approx([0.13, 0.12, 0.14, 0.1, 0.12, 0.1, 0.13])
    assert java_metrics.meteor(captions, references) == pytest.approx(sum(each) + 0.7)  # two references, not three


def test_parses_are_kept_where_that_can_be_done(machine, tmp_path, monkeypatch):
    machine(f"open({str(tmp_path / 'seen')!r}, 'a').write(sys.argv[sys.argv.index('-cache') + 1] + '\\n')\n{SPICE}")
    score(CANDIDATES, REFERENCES, ["spice"])
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", "gs://bucket/cache"):
        monkeypatch.setenv("COCA_CACHE", str(cache))
        score(CANDIDATES, REFERENCES, ["spice"])
    kept, *others = (tmp_path / "seen").read_text().splitlines()
    assert kept == str(tmp_path / "cache" / "spice") and os.path.isdir(kept)
    assert all(pathlib.Path(other).parent == tmp_path / "temporary" for other in others) and len(others) == 2


@pytest.mark.parametrize(
    "program, sentence",
    [
        (
            "print('Parsing', file=sys.stderr)\nsys.exit('Error: x\\n\\tat a.b(c)\\nCaused by: y\\n\\t... 3 more')",
            r"failed \(Parsing Error: x Caused by: y\): put that right",
        ),
        ("sys.exit('java.lang.OutOfMemoryError: Java heap space')", r"Java heap space\): give it more memory"),
        ("os.kill(os.getpid(), 9)", r"failed \(status -9, without a word\): give it more memory"),
        ("os.write(2, b'x' * 1_000_000 + b'\\xff')\nsys.exit(1)", "failed .x{300}.: put"),
        ("pass", "gave 0 lines instead of 2|gave no scores"),
        (
            "print('a', 'b', 'c', sep='\\n') if 'EVAL' in sys.stdin.read() else print('1 1\\n2 2')\n"
            "if '-out' in sys.argv: open(sys.argv[-2], 'w').write('[]')",
            "gave no score",
        ),
    ],
    ids=("exception", "heap", "killed", "loud", "silent", "nonsense"),
)
@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_a_failing_program_is_one_sentence(machine, tmp_path, name, program, sentence):
    machine(program)
    with pytest.raises(CocaError, match=sentence) as error:
        score(CANDIDATES, REFERENCES, [name])
    assert str(error.value).startswith(f"{name.upper()}'s Java program ") and f"metric '{name}'" in str(error.value)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("name", ["meteor", "spice"])
def test_a_program_that_hangs_is_ended(machine, tmp_path, monkeypatch, name):
    machine("time.sleep(60)")
    started, popen = [], subprocess.Popen

    def start(*args, **kinds):
        return started.append(popen(*args, **kinds)) or started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setitem(java_metrics._PATIENCE, name, (0, 0.01))
    with pytest.raises(CocaError, match=f"{name.upper()}'s Java program was ended after 0 minutes without a result"):
        score(CANDIDATES, REFERENCES, [name])
    assert started[-1].returncode == -signal.SIGKILL
    assert not list((tmp_path / "temporary").iterdir())


def test_a_java_that_cannot_be_started_is_one_sentence(machine, tmp_path):
    machine()
    (tmp_path / "bin" / "java").write_text("#!/nowhere")
    with pytest.raises(CocaError, match=r"METEOR's Java program could not be run .*: put that right, or leave out"):
        score(CANDIDATES, REFERENCES, ["meteor"])


@pytest.mark.slow
@pytest.mark.parametrize("name, published", [("meteor", "METEOR"), ("spice", "SPICE")])
def test_the_published_figures(shared_data, name, published):
    folder = shared_data / "data" / "caption_metrics"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    try:
        java_metrics.check_available(name)
    except CocaError as error:
        pytest.skip(str(error))
    references = json.loads((folder / "gts.json").read_text())
    results = json.loads((folder / "res.json").read_text())
    candidates = [results[image][0] for image in references]
    (expected,) = json.loads((folder / "expected_scores.json").read_text()).values()
    figure = score(candidates, list(references.values()), [name], tokenizer=str)[name]
    assert figure == pytest.approx(expected[published], abs=1e-9)


@pytest.mark.slow
def test_real_meteor_takes_any_caption():
    try:
        java_metrics.check_available("meteor")
    except CocaError as error:
        pytest.skip(str(error))
    captions = ["zoë's 犬", "a ||| dog", "a\ndog", "", "half \ud83d dog"]
    references = [["zoë's 犬"], ["a dog ||| cat", "a dog"], ["a dog"], [""], ["half a dog"]]
    each = [java_metrics.meteor([text], [own]) for text, own in zip(captions, references, strict=True)]
    assert each[0] == each[1] == each[2] == 1 and each[3] == 0 and 0 < each[4] < 1
