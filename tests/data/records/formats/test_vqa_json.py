"""VQA v2's questions and annotations in the layout of its downloads."""

import json

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records.formats import vqa_json
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from coca_jax.presets import datasets as presets
from coca_jax.storage import files as storage
from tests.data import builders

IMAGES = (458752, 9, 25, 262148)
ANSWERS = ("net", "net", "net", "netting", "net", "a mesh", "net", "net", "mesh", "net")


def questions(subtype="train2014", data_type="mscoco"):
    return {
        "info": {"description": "This is v2.0 of the VQA dataset.", "version": "2.0", "contributor": "VQA Team"},
        "task_type": "Open-Ended",
        "data_type": data_type,
        "license": {"url": "http://creativecommons.org/licenses/by/4.0/"},
        "data_subtype": subtype,
        "questions": [
            {"image_id": image, "question": f"What is it, number {number}?", "question_id": image * 1000 + number}
            for image in IMAGES
            for number in range(3)
        ],
    }


def annotations(subtype="train2014"):
    rows = [
        {
            "question_type": "what is",
            "multiple_choice_answer": "net",
            "answers": [
                {"answer": f"{answer} {row['question_id']}", "answer_confidence": "maybe", "answer_id": i}
                for i, answer in enumerate(ANSWERS, 1)
            ],
            "image_id": row["image_id"],
            "answer_type": "other" if row["question_id"] % 1000 else "yes/no",
            "question_id": row["question_id"],
        }
        for row in questions()["questions"]
    ]
    return {"info": {}, "license": {}, "data_subtype": subtype, "annotations": rows, "data_type": "mscoco"}


def name_of(image, subtype="train2014"):
    return f"COCO_{subtype}_{image:012d}.jpg"


def write(folder, contents=None, notes=None, subtype="train2014", images=""):
    images = folder / (images or subtype)
    images.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(IMAGES):
        (images / name_of(image, subtype.replace("test-dev", "test"))).write_bytes(builders.picture(number))
    path = folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json"
    path.write_text(json.dumps(contents or questions(subtype)))
    if notes != {}:
        (folder / f"v2_mscoco_{subtype}_annotations.json").write_text(json.dumps(notes or annotations(subtype)))
    return path


def opened(path, split="train", **options):
    values = {**presets.data("vqa_v2")["dataset"], "path": str(path), "holdout": 0.0, **options}
    return records.open_records(DatasetConfig(**values), split)


@pytest.mark.parametrize("subtype", ["train2014", "val2014"])
def test_each_question_is_a_record_with_its_annotation(tmp_path, subtype, monkeypatch):
    notes = annotations(subtype)
    notes["annotations"].reverse()  # joined by number, not by place
    path = write(tmp_path, notes=notes, subtype=subtype)
    monkeypatch.setattr(vqa_json, "_WORTH_KEEPING", 1)
    store = opened(path)
    monkeypatch.setattr(vqa_json.Questions, "_scanned", lambda *_: pytest.fail("scanned again"))
    kept = opened(path)
    assert kept.fingerprint == store.fingerprint and len(store) == store.census.total == 12 and not store.census.damage
    for one in (store, kept):
        for index, (record, row) in enumerate(zip(one.read(range(12)), questions()["questions"], strict=True)):
            assert record.key == name_of(row["image_id"], subtype) and record.captions == (row["question"],)
            assert record.image == builders.picture(IMAGES.index(row["image_id"]))
            found = dict(record.metadata)
            assert found["answers"] == [f"{answer} {row['question_id']}" for answer in ANSWERS]
            assert {key: found[key] for key in row} == row and found["multiple_choice_answer"] == "net"
            assert found["question_type"] == "what is" and found["answer_type"] in ("other", "yes/no")
            assert one.read_texts([index])[0].metadata == record.metadata
    assert store.name(4) == f"{tmp_path}/{subtype}/{name_of(9, subtype)} (row 5)"
    assert len(opened(path, only=("answer_type=yes/no",))) == 4


def test_all_questions_of_an_image_are_held_out_together(tmp_path):
    path = write(tmp_path)
    sides = [opened(path, split, holdout=0.8) for split in records.SPLITS]
    keys = [{store.key(i) for i in range(len(store))} for store in sides]
    assert not keys[0] & keys[1] and all(keys) and [len(store) for store in sides] == [3 * len(own) for own in keys]


@pytest.mark.parametrize(
    "place, images",
    [(".", "images"), (".", "."), ("annotations", "../train2014"), ("annotations", "../images/train2014")],
)
def test_images_lie_where_cocos_zips_put_them(tmp_path, place, images):
    path = write(tmp_path / place, images=images)
    assert [record.image for record in opened(path).read([0, 11])] == [builders.picture(0), builders.picture(3)]


def test_images_that_are_nowhere_are_missed_at_once(tmp_path):
    with pytest.raises(
        CocaError, match=r"names images such as COCO_train2014_000000458752\.jpg, which lie in none of .*/train2014/"
    ):
        opened(write(tmp_path, images="elsewhere"))


@pytest.mark.parametrize("subtype", ["test2015", "test-dev2015"])
def test_questions_of_test_images_are_evaluated_and_not_trained_on(tmp_path, subtype):
    path = write(tmp_path, notes={}, subtype=subtype, images="test2015")
    store = opened(path, "evaluation", evaluation_files=("*",))
    assert len(store) == 12 and builders.record(store, 3).key == name_of(9, "test2015")
    assert builders.text(store, 3).metadata["question_id"] == 9000 and "answers" not in builders.text(store, 3).metadata
    assert builders.text(store, 3).captions == ("What is it, number 0?",)
    with pytest.raises(CocaError, match=r"v2_mscoco_test.*2015_annotations\.json does not exist: put it beside"):
        opened(path)


def test_questions_and_annotations_without_each_other_are_counted(tmp_path):
    notes = annotations()
    notes["annotations"] = [*notes["annotations"][:5], *notes["annotations"][6:], {"question_id": 1, "image_id": 1}]
    store = opened(write(tmp_path, notes=notes))
    assert store.census.damage == {"question without annotation": 1, "annotation without question": 1}
    assert len(store) == 11 and 9002 not in [text.metadata["question_id"] for text in store.read_texts(range(11))]


def test_files_that_change_mid_run_give_bad_records(tmp_path):
    path = write(tmp_path)
    store = opened(path)
    notes = tmp_path / "v2_mscoco_train2014_annotations.json"
    notes.write_text(notes.read_text().replace('"answer_confidence": "maybe"', '"answer_confidence" "maybe"!'))
    assert {one.cause for one in store.read(range(12)) if isinstance(one, BadRecord)} == {"unreadable row"}
    notes.unlink()
    assert [one.cause for one in store.read([3])] == ["missing file"]


def test_the_fingerprint_is_of_both_files(tmp_path):
    path = write(tmp_path)
    first = opened(path).fingerprint
    notes = annotations()
    notes["annotations"][0]["answers"][0]["answer"] = "yes"
    assert opened(write(tmp_path, notes=notes)).fingerprint != first
    changed = questions()
    changed["questions"][0]["question"] = "Why?"
    assert opened(write(tmp_path, contents=changed)).fingerprint != first
    assert opened(write(tmp_path)).fingerprint == first and opened(path, "train").fingerprint == first


@pytest.mark.parametrize(
    "options, contents, message",
    [
        ({"records": "images"}, {}, r"has several questions an image, each a record: set the dataset's records=rows"),
        ({"text_fields": ("q",)}, {}, r"questions\.json has no field 'q' \(there is .*answers.*question_id.*\)"),
        ({}, {"questions": []}, "questions.json has no list of questions"),
        (
            {},
            {"questions": [{"question_id": "a", "image_id": 1}]},
            "a row of questions of .* has no number as question_id",
        ),
        ({}, {"questions": [7]}, "a row of questions of .* has no number as question_id"),
    ],
)
def test_what_is_wrong_with_questions_is_named(tmp_path, options, contents, message):
    path = write(tmp_path, contents={**questions(), **contents})
    with pytest.raises(CocaError, match=message) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)


def test_questions_within_images_are_no_file_of_questions(tmp_path):
    (tmp_path / "a.jpg").write_bytes(builders.picture(1))
    rows = [{"file_name": "a.jpg", "sentences": [{"raw": "a square"}], "questions": [{"q": "what?"}]}]
    (tmp_path / "list.json").write_text(json.dumps({"images": rows}))
    dataset = DatasetConfig(format="folder", path=str(tmp_path / "list.json"), holdout=0.0)
    assert builders.text(records.open_records(dataset, "train"), 0).captions == ("a square",)


def test_the_subtype_is_in_the_files_name_too(tmp_path):
    contents = questions()
    del contents["data_subtype"]
    assert opened(write(tmp_path, contents=contents)).key(0) == name_of(458752)


def test_neighbouring_questions_are_two_reads(tmp_path, monkeypatch):
    store = opened(write(tmp_path))
    reads = []
    original = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *args: reads.append(args) or original(*args))
    store.read_texts(range(12))
    assert len(reads) == 2
