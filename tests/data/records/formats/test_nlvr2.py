"""NLVR2's statements in the layout of its repository, and SNLI-VE's, whose rows need a template alone."""

import json

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records.formats.nlvr2 import with_images
from coca_jax.errors import CocaError
from coca_jax.presets import datasets as presets
from tests.data import builders


def statement(identifier, **more):
    return {
        "identifier": identifier,
        "sentence": f"There are two dogs, says {identifier}.",
        "left_url": "https://a.org/1.jpg",
        "right_url": "https://a.org/2.jpg",
        "label": "True" if identifier.endswith("0") else "False",
        "query": "dogs3",
        "writer": 4,
        **more,
    }


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())


def opened(path, name, split="train", **options):
    values = {**presets.data(name)["dataset"], "path": str(path), "holdout": 0.0, **options}
    return records.open_records(DatasetConfig(**values), split)


@pytest.mark.parametrize("above", ["", "images"])
def test_statements_of_train_lie_in_numbered_folders(tmp_path, above):
    lines = [statement(f"train-10171-0-{i}", directory=57) for i in range(2)]
    lines.append(statement("train-7-3-0", directory=3))
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    put(tmp_path / above / "train/57", "train-10171-0-img0.png", "train-10171-0-img1.png")
    put(tmp_path / above / "train/3", "train-7-3-img0.png", "train-7-3-img1.png")
    store = opened(tmp_path / "train.json", "nlvr2")
    found = store.read(range(3))
    assert len(store) == 3 and [record.metadata["label"] for record in found] == ["True", "False", "True"]
    assert [(record.image, record.second_image) for record in found] == [
        (b"train-10171-0-img0.png", b"train-10171-0-img1.png"),
        (b"train-10171-0-img0.png", b"train-10171-0-img1.png"),
        (b"train-7-3-img0.png", b"train-7-3-img1.png"),
    ]
    assert found[1].captions == (lines[1]["sentence"],) and found[1].metadata["identifier"] == "train-10171-0-1"
    assert [record.key for record in found[:2]] == ["train/57/train-10171-0-img0.png"] * 2
    moved = opened(tmp_path / "train.json", "nlvr2", image_field="a/{left_image}", second_image_field="a/{right_image}")
    assert moved.key(0) == "a/train/57/train-10171-0-img0.png"


@pytest.mark.parametrize("split", ["dev", "test1"])
def test_statements_of_other_splits_lie_in_a_folder_of_its_name(tmp_path, split):
    lines = [statement(f"{split}-850-0-{i}") for i in range(3)]
    (tmp_path / f"{split}.json").write_text("\n".join(map(json.dumps, lines)))
    put(tmp_path / split, f"{split}-850-0-img0.png", f"{split}-850-0-img1.png")
    store = opened(tmp_path / f"{split}.json", "nlvr2", "evaluation", evaluation_files=("*",))
    record = builders.record(store, 2)
    assert len(store) == 3 and record.second_image == f"{split}-850-0-img1.png".encode()


def test_other_identifiers_make_no_images(tmp_path):
    for row in (
        [1],
        {"identifier": 7},
        {"identifier": "train"},
        {"identifier": "a-1-2"},
        {"identifier": "x/../y-1-2-3"},
    ):
        assert with_images(row) is row
    lines = [{"identifier": "a", "sentence": "x"}] * 2
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        CocaError, match=r"line 1 of .*a\.json has no image under 'left_image' \(there is identifier, sentence\)"
    ):
        opened(tmp_path / "a.json", "nlvr2")


def test_a_directory_cannot_lead_out_of_the_folder(tmp_path):
    lines = [statement("train-1-0-0", directory="../../x"), statement("train-1-0-1", directory=1)]
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(CocaError, match=r"names the file .* must lie below the folder of its manifest"):
        opened(tmp_path / "train.json", "nlvr2")


def test_snli_ve_as_it_is_downloaded(tmp_path):
    lines = [
        {
            "annotator_labels": ["neutral"],
            "captionID": "3416050480.jpg#4",
            "gold_label": label,
            "pairID": f"3416050480.jpg#4r1{label[0]}",
            "sentence1": "A person on a horse.",
            "sentence2": f"A person trains, {label}.",
            "Flickr30K_ID": "3416050480",
        }
        for label in ("neutral", "contradiction", "entailment")
    ]
    (tmp_path / "snli_ve_train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    put(tmp_path / "flickr30k-images", "3416050480.jpg")
    found = opened(tmp_path / "snli_ve_train.jsonl", "snli_ve").read(range(3))
    assert [(record.metadata["gold_label"], *record.captions) for record in found] == [
        (row["gold_label"], row["sentence2"]) for row in lines
    ]
    assert {record.image for record in found} == {b"3416050480.jpg"}
