"""Heads evaluated on stored records and on digit scenes: their truth, their accuracy, and records left out."""

import json

import numpy as np
import pytest
from PIL import Image

from coca_jax.config import Config
from coca_jax.data.digit_scenes.tasks import CLASSES, task_scene
from coca_jax.errors import CocaError
from coca_jax.evaluation import predict
from coca_jax.evaluation.dataset import SelectedImages
from coca_jax.evaluation.head_datasets import open_head_dataset
from coca_jax.evaluation.open_dataset import run_datasets
from coca_jax.evaluation.runner import evaluate_datasets
from coca_jax.evaluation.tasks.base import shown_images
from coca_jax.pages.blocks import Gallery
from tests.data import builders
from tests.evaluation import fakes
from tests.inference import tiny_coca


def _write(folder, rows: list[dict]) -> str:
    folder.mkdir()
    lines = []
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes(row.pop("bytes", builders.picture(20 * number)))
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": "a red thing", **row}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return str(folder)


def _dataset(path: str, **keys):
    return builders.evaluation_dataset(**{"format": "folder", "path": path, "label_field": "kind", **keys})


def _run(objective: str) -> Config:
    return tiny_coca.adapted(objective).config


class Known:
    """A head that predicts a class for each image by its brightness, and answers in words by its question."""

    batch_size, can_embed, can_caption, classes, step, digest = 4, False, False, tiny_coca.CLASSES, 1, "0" * 16

    def __init__(self, chosen: dict[int, int]):
        self._chosen, self.asked = chosen, []

    def head_probabilities(self, images, texts=None, long_text="error") -> np.ndarray:
        self.asked += texts or []
        values = images[np.arange(len(images))].reshape(len(images), -1)[:, 0].tolist()
        return np.eye(3, dtype=np.float32)[[self._chosen[value] for value in values]] * 0.6 + 0.1

    def answer(self, images, questions, options=None, *, in_words, long_text) -> list[str]:
        assert in_words
        return ["a green" if "green" in question else "red" for question in questions]


def test_stored_records_have_their_class_and_others_are_left_out(tmp_path):
    rows = [{"kind": kind} for kind in ("red", "blue", "green", "zebra", None, "red")]
    rows[5]["bytes"] = b"<html>"
    config = _dataset(_write(tmp_path / "own", rows), tasks=("head_classification",))
    dataset = open_head_dataset("things", config, _run("classification"), tiny_coca.CLASSES)
    (task,) = dataset.classifications
    assert task.targets.tolist() == [0, 1, 2, 0] and not dataset.texts and not dataset.answers
    assert dict(dataset.unreadable) == {"class that is not among the run's classes": 1, "no kind": 1}
    (result,) = evaluate_datasets(Known({0: 0, 20: 1, 40: 1}), [dataset], gallery=2)
    assert result.metrics["things/accuracy"] == pytest.approx(2 / 3)
    assert result.baselines["things/accuracy"] == pytest.approx(1 / 3)  # the most frequent class
    assert result.metrics["things/unreadable"] == 3 and result.metrics["things/images"] == 3


def test_other_fields_are_coarser_classes_as_probable_as_the_heads_own_together(tmp_path):
    training = [("red", "warm"), ("blue", "cold"), ("green", "cold"), ("zebra", "striped")]
    held_out = [("red", "warm"), ("blue", "cold"), ("zebra", "cold"), ("red", "cold"), ("blue", "striped")]
    rows = [{"kind": kind, "tone": tone} for kind, tone in (*training, *held_out)]
    files = {"train_files": tuple(f"{number}.png" for number in range(4)), "evaluation_files": ("[4-8].png",)}
    path = _write(tmp_path / "own", rows)
    config = _dataset(path, tasks=("head_classification",), **files, fields=("tone",))
    dataset = open_head_dataset("things", config, _run("classification"), tiny_coca.CLASSES)
    # Of the classes red, blue, green: 0.7 and 0.1 twice; the image of an unknown kind has a tone all the same.
    coca = Known({80: 0, 100: 1, 120: 1, 140: 0, 160: 2})
    (result,) = evaluate_datasets(coca, [dataset], gallery=1)
    assert result.metrics["things/images"] == 5
    judged = {"The wrong answers of the highest probability."}
    marks = [card.lines[0].mark for card in fakes.gallery(result, "Examples").cards]
    assert marks == [True, True, None, False, False][:1]
    (wrong,) = (block for block in fakes.blocks(result, Gallery) if block.detail in judged)
    assert [card.alt for card in wrong.cards] == ["blue"]  # the image of an unknown kind cannot be wrong
    assert result.metrics["things/accuracy"] == pytest.approx(3 / 4)
    assert result.metrics["things/accuracy_tone"] == pytest.approx(3 / 5)
    assert result.baselines["things/accuracy_tone"] == pytest.approx(3 / 5)
    with pytest.raises(CocaError, match="no held-out record has a value of 'mood' that a training record has: change"):
        open_head_dataset("things", builders.with_keys(config, fields=("mood",)), _run("classification"), ("red",))


def test_coarser_classes_are_named_by_training_records_whatever_names_the_heads_own(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("red\nblue\ngreen\n")
    tones = [["warm", "loud"], "cold", "cold"]
    rows = [
        {"kind": kind, "tone": tone} for kind, tone in (*zip("012", tones, strict=True), ("1", "cold"), ("0", "loud"))
    ]
    config = _dataset(
        _write(tmp_path / "own", rows),
        tasks=("head_classification",),
        class_names=str(names),
        evaluation_files=("[34].png",),
        fields=("tone", "kind"),
    )
    dataset = open_head_dataset("t", config, _run("classification"), tiny_coca.CLASSES)
    _, tone, kind = dataset.classifications
    assert tone.labels == ["cold", "loud", "warm"] and tone.members == [("blue", "green"), ("red",), ("red",)]
    assert kind.labels == ["0", "1", "2"] and tone.targets.tolist() == [[0], [1]]
    (result,) = evaluate_datasets(Known({60: 2, 80: 0}), [dataset], 0)
    assert result.metrics["t/accuracy"] == 1 / 2  # the green one is blue, and cold as well
    assert result.metrics["t/accuracy_tone"] == 1  # of loud and warm, which are the same classes, the first is meant
    assert result.metrics["t/accuracy_kind"] == 1 / 2
    assert any("tone: warm comprise what others do" in note for note in result.notes)


def test_images_of_unknown_classes_alone_count_for_coarser_ones(tmp_path):
    rows = [{"kind": kind, "tone": "cold"} for kind in ("blue", "zebra")]
    path = _write(tmp_path / "own", rows)
    config = _dataset(path, tasks=("head_classification",), evaluation_files=("1.png",), fields=("tone",))
    dataset = open_head_dataset("t", config, _run("classification"), tiny_coca.CLASSES)
    assert dataset.captions == [("zebra",)]
    (result,) = evaluate_datasets(Known({20: 1}), [dataset], 1)
    assert result.metrics["t/accuracy_tone"] == 1 and np.isnan(result.metrics["t/accuracy"])
    assert any("1 of 1 images have a class that is not among the run's" in note for note in result.notes)


@pytest.mark.parametrize("crops, right", [(1, 0), (3, 1)])
def test_an_image_is_classified_by_the_mean_of_its_squares(tmp_path, crops, right):
    parts = np.repeat(np.array([0, 100, 200], np.uint8), 16)[None, :, None] * np.ones((16, 1, 3), np.uint8)
    rows = [{"kind": "red", "bytes": builders.encoded(Image.fromarray(parts))}]
    config = _dataset(_write(tmp_path / "own", rows), tasks=("head_classification",), evaluation_crops=crops)
    dataset = open_head_dataset("t", config, _run("classification"), tiny_coca.CLASSES)
    (result,) = evaluate_datasets(Known({0: 0, 100: 1, 200: 0}), [dataset], 0)
    assert result.metrics["t/accuracy"] == right
    ((shown,),) = shown_images(dataset, [0])
    assert shown.shape == (16, 16, 3) and shown[8, 8, 0] == 100  # the middle one
    if crops > 1:
        with pytest.raises(CocaError, match="only images and clips that are classified alone have several views"):
            open_head_dataset("t", config, _run("entailment"), tiny_coca.CLASSES)


def test_of_several_views_only_those_that_are_asked_for_are_read():
    class Shelf:
        shape, dtype = (9, 2, 1), np.dtype(np.uint8)

        def __init__(self):
            self.asked = []

        def __len__(self):
            return 9

        def __getitem__(self, rows):
            self.asked += rows.tolist()
            return np.stack([10 * rows, 10 * rows + 1], axis=1)[..., None]

    shelf = Shelf()
    views = predict._Views(SelectedImages(shelf, np.arange(4, 8)))
    assert views.shape == (8, 1) and len(views) == 8
    assert views[np.array([3, 4, 4, 7])].tolist() == [[51], [60], [60], [71]]
    assert shelf.asked == [5, 6, 7]


def test_texts_are_cleaned_as_in_training(tmp_path):
    rows = [{"kind": kind, "caption": "<b>a red thing</b>, www.red.com"} for kind in ("red", "blue")]
    config = _dataset(_write(tmp_path / "own", rows), tasks=("head_classification",), clean="alt_text")
    coca = Known({0: 0, 20: 1})
    (result,) = evaluate_datasets(coca, [open_head_dataset("t", config, _run("entailment"), tiny_coca.CLASSES)], 0)
    assert coca.asked == ["a red thing"] * 2 and result.metrics["t/accuracy"] == 1


def test_questions_are_scored_by_type_and_by_the_classifier_and_in_words(tmp_path):
    rows = [
        {"kind": ["red"] * 9 + ["blue"], "answer_type": "other", "question_id": 7},
        {"kind": ["blue"] * 2 + ["red"] * 8, "answer_type": "other", "question_id": 8},
        {"kind": ["green"] * 10, "answer_type": "odd/kind", "question_id": 9, "caption": "is it green"},
        {"kind": [], "answer_type": "other", "question_id": 10},
    ]
    config = _dataset(_write(tmp_path / "own", rows), tasks=("vqa",))
    dataset = open_head_dataset("q", config, _run("vqa"), tiny_coca.CLASSES)
    assert dataset.kinds == ["other", "other", "odd/kind"] and dict(dataset.unreadable) == {"no answer": 1}
    (result,) = evaluate_datasets(Known({0: 0, 20: 1, 40: 1}), [dataset], gallery=2)
    metrics = result.metrics
    assert metrics["q/vqa_accuracy"] == pytest.approx((1.0 + 0.6 + 0.0) / 3)
    assert metrics["q/vqa_accuracy_other"] == pytest.approx(0.8) and metrics["q/vqa_accuracy_odd_kind"] == 0
    # In words: red, red, and "a green", which as an answer on which all agree is compared letter by letter.
    assert metrics["q/vqa_accuracy_in_words"] == pytest.approx(2 / 3)
    assert result.submissions["answers"] == {7: "red", 8: "blue", 9: "blue"}


def test_questions_for_a_server_have_no_accuracy(tmp_path):
    rows = [{"question_id": 3}, {"question_id": 4}]
    config = builders.with_keys(_dataset(_write(tmp_path / "own", rows), tasks=("vqa",)), label_field="")
    dataset = open_head_dataset("q", config, _run("vqa"), tiny_coca.CLASSES)
    (result,) = evaluate_datasets(Known({0: 0, 20: 2}), [dataset], gallery=0)
    assert result.submissions["answers"] == {3: "red", 4: "green"} and "q/vqa_accuracy" not in result.metrics


def test_digit_scenes_have_the_truth_of_their_task():
    config = builders.evaluation_dataset(
        format="digit_scenes", task="entailment", examples=9, tasks=("head_classification",)
    )
    dataset = open_head_dataset("scenes", config, _run("entailment"), CLASSES["entailment"])
    made = [task_scene("entailment", index, "evaluation", 16) for index in range(9)]
    np.testing.assert_array_equal(dataset.images, [one.image for one in made])
    assert dataset.texts == [one.text for one in made] and dataset.kinds == [one.kind for one in made]
    assert dataset.classifications[0].targets.tolist() == [one.label for one in made]


def test_the_labels_of_digit_scenes_are_those_of_the_run():
    config = builders.evaluation_dataset(
        format="digit_scenes", task="entailment", examples=9, tasks=("head_classification",)
    )
    there = (*reversed(CLASSES["entailment"]), "another")
    (task,) = open_head_dataset("scenes", config, _run("entailment"), there).classifications
    names = [CLASSES["entailment"][task_scene("entailment", index, "evaluation", 16).label] for index in range(9)]
    assert [there[label] for label in task.targets] == names
    with pytest.raises(CocaError, match="the task entailment of digit_scenes has the class 'neutral', which the"):
        open_head_dataset("scenes", config, _run("entailment"), ("entailment", "contradiction"))


@pytest.mark.parametrize(
    "objective, keys, sentence",
    [
        (
            "vqa",
            {"tasks": ("head_classification",)},
            r"the objective vqa is not evaluated by .*: set tasks to \('vqa',\)",
        ),
        (
            "pairs",
            {"tasks": ("vqa",)},
            r"the objective pairs is not evaluated by vqa: set tasks to \('head_classification'",
        ),
        (
            "pretraining",
            {"tasks": ("vqa",)},
            "the objective pretraining is not evaluated by vqa: evaluate an adapted run",
        ),
        ("classification", {"tasks": ("head_classification",)}, "the task captions of digit_scenes has no classes"),
    ],
)
def test_a_task_that_is_not_the_heads_is_said_in_a_sentence(objective, keys, sentence):
    config = builders.evaluation_dataset(format="digit_scenes", **keys)
    given = _run(objective) if objective != "pretraining" else tiny_coca.coca().config
    with pytest.raises(CocaError, match=sentence):
        open_head_dataset("t", config, given, tiny_coca.CLASSES)


def test_a_runs_own_records_are_evaluated_by_its_head():
    config = tiny_coca.adapted("vqa").config
    (dataset,) = run_datasets(builders.with_keys(config, examples=5), CLASSES["questions"])
    assert dataset.config.tasks == ("vqa",) and len(dataset.answers) == len(dataset.texts) == 5


def test_a_model_without_a_head_is_not_asked(tmp_path):
    config = _dataset(_write(tmp_path / "own", [{"kind": "red"}, {"kind": "blue"}]), tasks=("head_classification",))
    dataset = open_head_dataset("things", config, _run("classification"), tiny_coca.CLASSES)
    with pytest.raises(CocaError, match="things: head_classification needs a head, which this model has not"):
        evaluate_datasets(tiny_coca.coca(), [dataset], gallery=0)


def test_no_usable_record_is_a_sentence(tmp_path):
    config = _dataset(_write(tmp_path / "own", [{"kind": "zebra"}] * 1), tasks=("head_classification",))
    with pytest.raises(CocaError, match=r"none of the held-out records of .* can be used \(1 class that is not among"):
        open_head_dataset("things", config, _run("classification"), tiny_coca.CLASSES)
