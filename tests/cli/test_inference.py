"""`classify` and `answer` as a person meets them, on runs with random parameters; `caption` is in test_commands.py."""

import itertools

import jax
import jax.numpy as jnp
import pytest
import running
import tiny
from etils import epath
from PIL import Image

from coca_jax import objectives
from coca_jax.cli import inference
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.inference.model import Coca
from coca_jax.models.coca import abstract_parameters
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from coca_jax.trainer.state import TrainState
from tests.inference import tiny_coca

CLASSES = ("red", "blue", "green")


def saved(folder, objective: str) -> Coca:
    """A run of this objective in `folder`, with random parameters."""
    vocabulary = train_vocabulary(["a red thing", "a blue one", "what color is it?"], 40)
    changes = {"objective__name": objective, "model__text__vocabulary_size": vocabulary.size, "model__text__length": 24}
    if objective != "pretraining":
        changes["objective__head__classes"] = len(CLASSES)
        changes["data__dataset__task"] = {"vqa": "questions"}.get(objective, objective)
    config = tiny.config(**changes)
    params = tiny.spread_parameters(abstract_parameters(objectives.build(config).model)[0])
    classes = CLASSES if objective != "pretraining" else ()
    state = TrainState(jnp.int32(7), jax.tree.map(jnp.asarray, params), None, {"count": jnp.int32(7)})
    checkpoints = Checkpoints(epath.Path(folder), keep=1)
    checkpoints.save(state, 7, RunRecord(config, vocabulary.model_bytes, data_fingerprint="", classes=classes))
    checkpoints.close()
    return Coca(config, params, vocabulary, 7, classes=classes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four images, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(tiny_coca.images()[:4]):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return [*(folder / f"{number}.png" for number in range(4)), folder / "broken.png"]


def rows(command: str, *arguments: object) -> tuple[int, list[list[str]], list[str]]:
    """The status of a command, the fields of its lines, and its errors."""
    status, out, err = running.call(running.command(command, *arguments))
    assert "Traceback" not in err, err
    return status, [line.split("\t") for line in out.splitlines()], err.splitlines()


def test_pairs_are_classified_two_files_at_a_time(files, tmp_path):
    coca, checkpoint = saved(tmp_path, "pairs"), f"--checkpoint={tmp_path}"
    a, b, c, d, broken = files
    status, lines, errors = rows("classify", checkpoint, "--text=a red thing", "--top=2", a, b, broken, c, c, d)
    assert status == 2 and len(errors) == 1 and str(broken) in errors[0], errors
    expected = coca.predict([(a, b), (c, d)], "a red thing")
    names = [
        [str(left), str(right), label]
        for (left, right), prediction in zip([(a, b), (c, d)], expected, strict=True)
        for label in itertools.islice(prediction.probabilities, 2)
    ]
    assert [line[:3] for line in lines] == names
    assert float(lines[0][3]) == pytest.approx(expected[0].probability, abs=1e-3)
    assert "--text is missing" in rows("classify", checkpoint, a, b)[2][0]
    with pytest.raises(CocaError, match="3 is odd: name the two images of each pair"):
        inference.read_examples(coca.config, [a, b, c])


def test_questions_are_answered_by_choice_and_in_words(files, tmp_path):
    coca, asked = saved(tmp_path, "vqa"), (f"--checkpoint={tmp_path}", "--question=what color is it?")
    status, lines, errors = rows("answer", *asked, files[0], files[4], files[1])
    expected = coca.predict(files[:2], "what color is it?")
    assert status == 2 and len(errors) == 1 and str(files[4]) in errors[0], errors
    assert [line[:2] for line in lines] == [[str(f), p.label] for f, p in zip(files[:2], expected, strict=True)]
    status, lines, errors = rows("answer", *asked, "--in_words", "--max_tokens=5", files[0])
    assert (status, errors) == (0, []) and [len(line) for line in lines] == [2]
    assert "--beams has no effect" in rows("answer", *asked, "--beams=2", files[0])[2][0]
    assert "python -m coca_jax.answer asks it questions" in rows("classify", asked[0], files[0])[2][0]


def test_without_a_head_classes_come_from_labels(files, tmp_path):
    coca, checkpoint = saved(tmp_path, "pretraining"), f"--checkpoint={tmp_path}"
    flags = ("--labels=red,blue", "--templates=a {} thing", "--templates=a {} one", "--top=5")
    status, lines, errors = rows("classify", checkpoint, *flags, files[0])
    assert (status, errors, len(lines)) == (0, [], 2)
    (expected,) = coca.class_probabilities(files[:1], ("red", "blue"), ("a {} thing", "a {} one"))
    found = {label: float(probability) for _, label, probability in lines}
    assert [found["red"], found["blue"]] == pytest.approx(expected, abs=2e-3)
    assert "--labels is missing: the run has no head" in rows("classify", checkpoint, files[0])[2][0]


@pytest.mark.parametrize(
    "command, flags, words",
    [
        ("answer", ["--checkpoint=run", "x.png"], "--question is missing"),
        ("answer", ["--checkpoint=run", "--question=what?"], "there is no image"),
        ("classify", ["x.png"], "--checkpoint is missing"),
        ("classify", ["--checkpoint=run", "--top=0", "x.png"], "--top=0"),
    ],
)
def test_mistakes_are_named_in_one_sentence(command, flags, words):
    status, lines, errors = rows(command, *flags)
    assert status == 2 and not lines and len(errors) == 1 and words in errors[0], errors
