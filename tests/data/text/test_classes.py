"""The classes of a run's head: names of folders and files, values that occur, answers, and several sources together."""

import json

import pytest
import tiny
import tiny_tasks

from coca_jax.data.digit_scenes.tasks import CLASSES
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text.classes import answers, only_class, run_classes
from coca_jax.errors import CocaError
from tests.data import builders


def _config(path, objective: str = "classification", **changes):
    dataset = dict(data__dataset__format="folder", data__dataset__path=str(path), objective__name=objective)
    return tiny.config(**dataset | {"data__dataset__label_field": "kind"} | changes)


def _write(folder, rows: list[dict]):
    """A folder with a manifest of these rows, an image each."""
    folder.mkdir()
    lines = []
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes(builders.picture(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": "what is it", **row}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def test_folders_are_classes(tmp_path):
    for kind in ("old_car", "boat", "tram"):
        builders.write_folder(tmp_path / kind, range(4))
    config = _config(tmp_path, data__dataset__label_field="folder")
    assert run_classes(config) == ("boat", "old car", "tram")


def test_values_that_occur_are_sorted_and_unlabelled_records_left_out(tmp_path):
    kinds = [{"kind": "b"}, {"kind": "a"}, {"kind": None}, {"kind": "b"}, {"kind": ""}]
    assert run_classes(_config(_write(tmp_path / "own", kinds), data__dataset__holdout=0.0)) == ("a", "b")


def test_a_file_of_class_names_has_its_own_order(tmp_path):
    folder = _write(tmp_path / "own", [{"kind": number % 2} for number in range(6)])
    (tmp_path / "names.txt").write_text("zebra\nant\nunseen\n")
    config = _config(folder, data__dataset__class_names=str(tmp_path / "names.txt"))
    assert run_classes(config) == ("zebra", "ant", "unseen")


def test_answers_are_the_most_frequent_ones(tmp_path):
    given = [["yes", "Yes.", "no"], ["two", "2"], ["no"], ["no", "no"], ["yes"], ["No"], ["a dog"], [" "], None]
    folder = _write(tmp_path / "own", [{"kind": one} for one in given])
    config = _config(folder, "vqa", data__dataset__holdout=0.0)
    assert run_classes(config) == ("no", "yes", "2", "dog")
    assert run_classes(_config(folder, "vqa", data__dataset__holdout=0.0, objective__head__classes=2)) == ("no", "yes")


def test_one_answer_or_several(tmp_path):
    dataset = _config(tmp_path, "vqa").data.dataset
    assert answers({"kind": "red"}, dataset) == ("red",)
    assert answers({"kind": ["red", None, " ", 2]}, dataset) == ("red", "2")
    assert answers({}, dataset) == answers({"kind": None}, dataset) == ()


def test_several_sources_have_the_classes_of_all(tmp_path):
    for name, kinds in (("one", "xy"), ("two", "yz")):
        _write(tmp_path / name, [{"kind": kinds[number % 2]} for number in range(6)])
    keys = dict(format="folder", label_field="kind", holdout=0.0)
    sources = {name: builders.source(path=str(tmp_path / name), **keys) for name in ("one", "two")}
    config = builders.with_keys(
        tiny.config(objective__name="classification", data__dataset__task="digits"), mixture=sources
    )
    assert run_classes(config) == ("x", "y", "z")
    vqa = builders.with_keys(
        tiny.config(objective__name="vqa", data__dataset__task="questions"),
        mixture={"one": sources["one"], "scenes": builders.source(task="questions")},
    )
    assert set(run_classes(vqa)) == {"x", "y", *CLASSES["questions"]}
    assert "2" not in run_classes(vqa)


def test_numbers_of_stored_answers_are_the_words_of_the_scenes(tmp_path):
    folder = _write(tmp_path / "own", [{"kind": "2"}] * 4)
    source = builders.source(path=str(folder), format="folder", label_field="kind", holdout=0.0)
    config = builders.with_keys(
        tiny.config(objective__name="vqa", data__dataset__task="questions"),
        mixture={"scenes": builders.source(task="questions"), "own": source},
    )
    assert run_classes(config) == CLASSES["questions"]


def test_a_record_of_several_classes_has_none(tmp_path):
    rows = [{"kind": "a"}, {"kind": ["b", "c"]}, {"kind": ["d", "d"]}, {"kind": "a"}]
    assert run_classes(_config(_write(tmp_path / "own", rows), data__dataset__holdout=0.0)) == ("a", "d")
    assert only_class(("d", "d")) == "d"
    with pytest.raises(BadRecord, match="several classes"):
        only_class(("b", "c"))


@pytest.mark.parametrize("task", tiny_tasks.OBJECTIVES)
def test_digit_scenes_have_those_of_their_task(task):
    assert run_classes(tiny_tasks.config(task)) == CLASSES[task]
    assert run_classes(tiny.config()) == ()


@pytest.mark.parametrize(
    "kinds, changes, sentence",
    [
        ("aaaa", {}, "the data has one class, and a head needs two: change data.dataset.label_field"),
        (
            "abab",
            {"objective__head__classes": 3},
            "objective.head.classes = 3, but the data has 2 classes: set it to 0",
        ),
    ],
)
def test_what_is_no_classification_is_said_in_a_sentence(tmp_path, kinds, changes, sentence):
    folder = _write(tmp_path / "own", [{"kind": kind} for kind in kinds])
    with pytest.raises(CocaError, match=sentence):
        run_classes(_config(folder, data__dataset__holdout=0.0, **changes))
