"""A manifest's rows as records of their own, pairs of images, and tables without a header."""

import csv
import json

import numpy as np
import pytest

from coca_jax import config as config_lib
from coca_jax.config import DatasetConfig
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records import open as records
from coca_jax.data.records.formats import manifest
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.presets import datasets as presets
from tests.data import builders

IMAGES, QUESTIONS = 40, 3


def dataset(path, **options):
    return DatasetConfig(**{"format": "folder", "path": str(path), "holdout": 0.0, "records": "rows", **options})


def opened(path, split="train", **options):
    return records.open_records(dataset(path, **options), split)


def rows():
    """Several questions of each image, not beside each other."""
    return [
        {
            "file_name": f"{image}.png",
            "question": f"question {number}?",
            "caption": f"{image} {number}",
            "answer": f"a{number}",
        }
        for number in range(QUESTIONS)
        for image in range(IMAGES)
    ]


def write(folder, kind):
    for image in range(IMAGES):
        (folder / f"{image}.png").write_bytes(builders.picture(image))
    path = folder / f"list.{kind}"
    if kind in ("csv", "tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows()[0], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows())
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows())))
    elif kind == "json":
        path.write_text(json.dumps(rows()))
    else:  # COCO
        path = folder / "list.json"
        images = [{"id": image, "file_name": f"{image}.png"} for image in range(IMAGES)]
        notes = [{**row, "image_id": int(row.pop("file_name")[:-4]), "id": 900 + i} for i, row in enumerate(rows())]
        path.write_text(
            json.dumps(
                {"annotations": [*notes, {"image_id": -1}], "images": [*images, {"id": 77, "file_name": "0.png"}]}
            )
        )
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "coco"])
def test_each_row_is_a_record_with_its_own_text_and_metadata(tmp_path, kind, monkeypatch):
    path = write(tmp_path, kind)
    store = opened(path, text_fields=("question",), label_field="answer")
    assert len(store) == store.census.total == IMAGES * QUESTIONS
    for index, (record, row) in enumerate(
        zip(store.read(range(len(store))), rows(), strict=True)
    ):  # in the file's order
        assert record.key == store.key(index) == row["file_name"]
        assert record.captions == (row["question"],) and record.metadata["answer"] == row["answer"]
        assert record.metadata["caption"] == row["caption"] and "rows" not in record.metadata
        assert record.image == builders.picture(int(record.metadata["stem"])) and record.second_image == b""
    assert store.name(5) == f"{tmp_path}/5.png (row 6)"
    assert store.read([7, 3])[0] == store.read([7])[0]
    assert opened(path, text_fields=("question",), label_field="answer").fingerprint == store.fingerprint
    if kind == "coco":
        assert store.census.damage == {"annotation without image": 1, "image without text": 1}
        assert builders.text(store, 41).metadata["image_id"] == builders.text(store, 41).metadata["id"] == 1
    grouped = opened(path, text_fields=("question",), label_field="answer", records="images")
    assert len(grouped) == IMAGES and len(builders.text(grouped, 0).captions) == QUESTIONS
    monkeypatch.setattr(manifest, "_WORTH_KEEPING", 1)  # the index of rows is no index of images
    for _ in range(2):
        assert [len(opened(path, label_field="answer", records=one)) for one in ("rows", "images")] == [120, 40]


def test_all_questions_of_an_image_are_held_out_together(tmp_path):
    path = write(tmp_path, "csv")
    train, held_out = (opened(path, split, holdout=0.3) for split in records.SPLITS)
    keys = [{store.key(index) for index in range(len(store))} for store in (train, held_out)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == IMAGES
    assert len(held_out) == train.census.held_out == QUESTIONS * len(keys[1]) > 0
    assert len(train) + len(held_out) == train.census.total == IMAGES * QUESTIONS
    images = opened(path, "evaluation", holdout=0.3, records="images")
    assert {images.key(index) for index in range(len(images))} == keys[1]  # the same as of whole images
    assert train.fingerprint != opened(path, holdout=0.2).fingerprint
    assert [record.metadata["caption"] for record in train.read(range(len(train)))] == [
        row["caption"] for row in rows() if row["file_name"] in keys[0]
    ]


def test_rows_are_chosen_by_their_own_metadata_and_images_by_their_key(tmp_path):
    path = write(tmp_path, "jsonl")
    only = opened(path, only=("answer=a1",))
    assert len(only) == IMAGES and {record.metadata["answer"] for record in only.read(range(IMAGES))} == {"a1"}
    (tmp_path / "drop.txt").write_text("3.png\n5.png\n")
    store = opened(path, exclude_keys=str(tmp_path / "drop.txt"))
    assert len(store) == (IMAGES - 2) * QUESTIONS


def test_a_damaged_row_spoils_no_other_of_its_image(tmp_path):
    path = write(tmp_path, "jsonl")
    path.write_text("\n".join(json.dumps({**row, "caption": "" if i == 4 else "x"}) for i, row in enumerate(rows())))
    found = opened(path).read(range(IMAGES * QUESTIONS))
    assert [i for i, one in enumerate(found) if isinstance(one, BadRecord)] == [4]


def test_a_batch_has_the_question_of_its_row(tmp_path):
    path = write(tmp_path, "csv")
    config = builders.config(
        batch_size=8, format="folder", path=str(path), records="rows", holdout=0.0, text_fields=("caption",)
    )
    vocabulary = train_vocabulary([row["caption"] for row in rows()] * 3, 100)
    pipeline = Pipeline(config, vocabulary)
    seen = set()
    for step in range(15):
        batch = pipeline.batch(step)
        texts = vocabulary.decode(batch["text"])
        assert [int(text.split()[0]) for text in texts] == builders.shades(batch)
        seen.update(texts)
    assert seen == {row["caption"] for row in rows()}  # 15 steps of 8 are an epoch


def test_rows_and_pairs_need_a_manifest(tmp_path):
    builders.write_folder(tmp_path, range(3))
    for options in ({}, {"records": "images", "second_image_field": "b"}):
        with pytest.raises(CocaError, match=r"has no rows for records=rows or second_image_field: .* to a manifest"):
            opened(tmp_path, **options)
    for key, value in (("records", "rows"), ("second_image_field", "b")):
        with pytest.raises(CocaError, match=rf"data\.dataset\.{key} has no effect on format=tars, as only manifests"):
            config_lib.from_config_dict({"data": {"dataset": {"format": "tars", "path": "a", key: value}}})


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "x").mkdir()
    for image in range(4):
        (tmp_path / "x" / f"{image}.png").write_bytes(builders.picture(image))
    lines = [
        {"left": "x/0.png", "right": "x/1.png", "n": 1, "text": "one"},
        {"left": "x/2.png", "right": "x/9.png", "n": 9, "text": "its right image is missing"},
        {"left": "x/2.png", "right": "../../etc/passwd", "n": 3, "text": "it leaves the folder"},
        {"left": "x/2.png", "text": "it has no right image"},
        {"left": "x/9.png", "right": "x/0.png", "n": 0, "text": "its left image is missing"},
        {"left": "x/0.png", "right": "./x/3.png", "n": 3, "text": "six"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("field", ["right", "x/{n}.png"])
def test_pairs_of_images(pairs, field):
    store = opened(pairs, image_field="left", second_image_field=field)
    found = store.read(range(6))
    causes = [one.cause if isinstance(one, BadRecord) else "" for one in found]
    third = "second image outside the manifest's folder" if field == "right" else ""
    assert causes == ["", "missing file", third, "record without second image", "missing file", ""]
    assert (found[0].image, found[0].second_image) == (builders.picture(0), builders.picture(1))
    assert (found[5].image, found[5].second_image) == (builders.picture(0), builders.picture(3))
    assert found[5].captions == ("six",) and builders.text(store, 1).captions == ("its right image is missing",)
    by_image = opened(pairs, image_field="left", second_image_field=field, records="images")
    assert builders.record(by_image, 0).second_image == builders.picture(1) and len(by_image) == 3
    assert opened(pairs, image_field="left").read([0])[0].second_image == b""


def test_pairs_of_manifests_in_folders_below(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for image in range(2):
            (tmp_path / split / f"{image}.png").write_bytes(builders.picture(image + len(split)))
        (tmp_path / split / "metadata.csv").write_text("file_name,other,text\n0.png,1.png,a\n1.png,0.png,b\n")
    store = opened(tmp_path, second_image_field="other")
    assert store.key(2) == "train/0.png"
    assert [one.second_image for one in store.read([0, 3])] == [builders.picture(5), builders.picture(5)]


@pytest.mark.parametrize(
    "field, message",
    [("other", "has no field 'other'.*: change second_image_field"), ("{}", "second_image_field has '{}'")],
)
def test_a_second_image_that_no_row_has_is_named(pairs, field, message):
    with pytest.raises(CocaError, match=message):
        opened(pairs, image_field="left", second_image_field=field)


def test_moments_in_time_has_no_header(tmp_path):
    for place in ("training/aggressive", "training/baking"):
        (tmp_path / place).mkdir(parents=True)
    lines = ["aggressive/yt-1_5.mp4,aggressive,3,0", 'baking/"a, b".mp4,baking,3,1', "baking/c.mp4,baking,2,2"]
    (tmp_path / "trainingSet.csv").write_text("\n".join(lines).replace('baking/"a, b".mp4', '"baking/a, b.mp4"'))
    for name in ("aggressive/yt-1_5", "baking/a, b", "baking/c"):
        (tmp_path / "training" / f"{name}.mp4").write_bytes(name.encode())
    store = opened(tmp_path / "trainingSet.csv", **{**presets.data("moments_in_time")["dataset"], "records": "images"})
    found = store.read(range(3))
    assert [record.metadata["1"] for record in found] == ["aggressive", "baking", "baking"]
    assert [record.image for record in found] == [b"aggressive/yt-1_5", b"baking/a, b", b"baking/c"]
    assert store.key(0) == "training/aggressive/yt-1_5.mp4"
    (tmp_path / "trainingSet.csv").write_text("\n".join([lines[0], "baking/c.mp4,baking"]))
    with pytest.raises(CocaError, match=r"^line 2 of .* has 2 values, but the first line has 4: write the missing"):
        opened(tmp_path / "trainingSet.csv", image_field="training/{0}", label_field="1")


def test_a_template_of_numbers_has_no_header_either(tmp_path):
    (tmp_path / "list.csv").write_text("what?,a dog,3\nwhere?,here,4\n")
    store = opened(tmp_path / "list.csv", image_field="{2}.png", text_fields=("0",), label_field="1")
    assert [store.key(0), store.key(1)] == ["3.png", "4.png"]
    assert [(*one.captions, one.metadata["1"]) for one in store.read_texts([0, 1])] == [
        ("what?", "a dog"),
        ("where?", "here"),
    ]


def test_a_header_of_numbers_is_a_header(tmp_path):
    (tmp_path / "a.png").write_bytes(builders.picture(1))
    (tmp_path / "list.csv").write_text("0,caption\na.png,one\n")
    assert [one.captions for one in opened(tmp_path / "list.csv", image_field="0").read([0])] == [("one",)]
    (tmp_path / "list.csv").write_text("a.png,one\n")
    with pytest.raises(CocaError, match=r"no field '7' .*there is.* 0, 1.*change text_fields"):
        opened(tmp_path / "list.csv", image_field="0", text_fields=("7",))


def test_the_questions_of_easy_vqa(shared_data):
    folder = shared_data / "data/easy_vqa"
    values = presets.data("easy_vqa_questions")["dataset"]
    for part, count, images in (("train", 38_575, 4_000), ("test", 9_673, 1_000)):
        store = opened(folder / part / "questions.json", **values)
        raw = json.loads((folder / part / "questions.json").read_text())
        assert len(store) == len(raw) == count
        assert len({store.key(index) for index in range(count)}) == images
        for index in np.linspace(0, count - 1, 20).astype(int).tolist():
            record = builders.record(store, index)
            assert [*record.captions, record.metadata["1"], int(record.metadata["stem"])] == raw[index]
            assert record.image == (folder / part / "images" / f"{raw[index][2]}.png").read_bytes()
