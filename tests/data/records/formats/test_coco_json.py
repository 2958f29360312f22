"""COCO's annotations and Karpathy's splits as they are downloaded, as manifests."""

import json
import re

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.images import decode as images
from coca_jax.data.records import open as records
from coca_jax.data.records.formats import manifest
from coca_jax.errors import CocaError
from coca_jax.presets import datasets as sets
from tests.data import builders


def opened(path, **options):
    return records.open_records(
        DatasetConfig(**dict(dict(format="folder", path=str(path), holdout=1e-9), **options)), "train"
    )


def said(store):
    return {record.key: record.captions for record in store.read(range(len(store)))}


@pytest.fixture(scope="module")
def photos(shared_data):
    """Of six photographs: the bytes, and what COCO says of them."""
    folder = shared_data / "data/coco_photos"
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text("utf-8").splitlines()[:6]]
    return [((folder / "images" / row["file_name"]).read_bytes(), row) for row in rows]


def put(photos, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for data, row in photos:
        (folder / row["file_name"]).write_bytes(data)


def coco(photos):
    """As in captions_train2017.json: annotations in the order of their numbers, not of the pictures."""
    notes = [
        {"image_id": row["image_id"], "id": 10 * place + number, "caption": text}
        for number, (_, row) in enumerate(photos)
        for place, text in enumerate(row["captions"])
    ]
    images = [{"license": 3, "file_name": row["file_name"], "id": row["image_id"], "height": 9} for _, row in photos]
    return {
        "info": {"images": [1, {"annotations": "[]}"}]},
        "images": images,
        "licenses": [],
        "annotations": sorted(notes, key=lambda note: note["id"]),
    }


def karpathy(photos, **row_of):
    splits = ("train", "restval", "val", "test", "test", "train")
    rows = [
        {
            "filename": row["file_name"],
            "imgid": i,
            "split": split,
            "sentences": [{"raw": text, "tokens": text.split(), "sentid": 5 * i} for text in row["captions"]],
            **row_of,
        }
        for i, ((_, row), split) in enumerate(zip(photos, splits, strict=True))
    ]
    return {"images": rows, "dataset": "flickr30k"}


@pytest.mark.parametrize(
    "place, pictures",
    [
        ("annotations", "train2017"),
        ("", "train2017"),
        ("annotations", "images/train2017"),
        ("a", "a"),
        ("a", "a/images"),
    ],
)
@pytest.mark.parametrize("annotations_first", [False, True])
def test_cocos_annotations_beside_its_pictures(photos, tmp_path, place, pictures, annotations_first):
    put(photos, tmp_path / pictures)
    contents = coco(photos)
    contents = dict(reversed(contents.items())) if annotations_first else contents
    (tmp_path / place).mkdir(exist_ok=True)
    path = tmp_path / place / "captions_train2017.json"
    path.write_text(json.dumps(contents, indent=1 if annotations_first else None), "utf-8")
    store = opened(path)
    assert said(store) == {row["file_name"]: tuple(row["captions"]) for _, row in photos}
    data, row = photos[2]
    assert (
        builders.record(store, 2).image == data
        and images.decode(builders.record(store, 2).image)
        and not store.census.damage
    )
    assert builders.text(store, 2).metadata["image_id"] == builders.text(store, 2).metadata["id"] == row["image_id"]
    assert (
        store.name(2) == f"{tmp_path / pictures / row['file_name']}"
        and len(builders.text(store, 2).metadata["rows"]) == 5
    )
    assert len(opened(path, exclude=(f"id={row['image_id']}",))) == 5


def test_the_index_of_annotations_is_kept(photos, tmp_path, monkeypatch):
    put(photos, tmp_path)
    contents = coco(photos)
    contents["annotations"] = [note for note in contents["annotations"] if note["image_id"] != photos[1][1]["image_id"]]
    contents["annotations"].append({"image_id": -1, "id": -1, "caption": "of nothing"})
    path = tmp_path / "captions_val2017.json"
    path.write_text("\ufeff" + json.dumps(contents, ensure_ascii=False), "utf-8")
    monkeypatch.setattr(manifest, "_WORTH_KEEPING", 1)
    first = opened(path)
    monkeypatch.setattr(manifest._Scanner, "index", lambda *_, **__: pytest.fail("scanned again"))
    for store in (first, opened(path)):
        assert store.census.damage == {"image without text": 1, "annotation without image": 1}
        assert len(store) == 5 and said(store)[photos[0][1]["file_name"]] == tuple(photos[0][1]["captions"])
        assert store.fingerprint == first.fingerprint


def test_annotations_that_change_mid_run_give_bad_records(photos, tmp_path):
    put(photos, tmp_path)
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(coco(photos)))
    store = opened(path)
    path.write_text(re.sub(r'{"license[^}]*}', lambda row: "[1]".ljust(len(row[0])), path.read_text()))
    assert [record.cause for record in store.read(range(6))] == ["unreadable row"] * 6


def test_karpathys_splits_of_flickr30k(photos, tmp_path):
    put(photos, tmp_path / "flickr30k-images")
    path = tmp_path / "dataset_flickr30k.json"
    path.write_text(json.dumps(karpathy(photos)))
    test = opened(path, only=("split=test",))
    assert said(test) == {row["file_name"]: tuple(row["captions"]) for _, row in photos[3:5]}
    assert builders.record(test, 0).image == photos[3][0] and builders.text(test, 0).metadata["split"] == "test"
    ready = opened(path, **dict(sets.data("karpathy")["dataset"], holdout=1e-9))
    assert [ready.key(i) for i in range(3)] == [photos[i][1]["file_name"] for i in (0, 1, 5)] and len(ready) == 3


def test_karpathys_splits_of_coco_name_the_pictures_folder(photos, tmp_path):
    put(photos, tmp_path / "val2014")
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(karpathy(photos, filepath="val2014", cocoid=7)))
    store = opened(path)
    assert (
        store.key(0) == "val2014/" + photos[0][1]["file_name"]
        and builders.text(store, 0).metadata["folder"] == "val2014"
    )
    assert store.read(range(6))[5].image == photos[5][0] and len(store) == 6
    assert opened(tmp_path / "dataset_coco.json", image_field="val2014/{filename}").read([1])[0].image == photos[1][0]


def test_several_rows_of_a_picture_without_annotations_keep_their_captions(photos, tmp_path):
    put(photos, tmp_path)
    names = [row["file_name"] for _, row in photos]
    path = tmp_path / "captions_x.json"
    for extra in ({}, {"image_id": 7}):
        rows = [{"id": i, "file_name": names[i // 2], "caption": f"text {i}", **extra} for i in range(4)]
        path.write_text(json.dumps({"images": rows}))
        assert said(opened(path)) == {names[0]: ("text 0", "text 1"), names[1]: ("text 2", "text 3")}


def test_an_empty_caption_in_front_spoils_one_caption_alone(photos, tmp_path):
    put(photos, tmp_path)
    contents = coco(photos)
    contents["annotations"][0]["caption"] = ""
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(contents))
    assert [len(captions) for captions in said(opened(path)).values()] == [4, 5, 5, 5, 5, 5]


def test_pictures_without_captions_are_listed_for_a_server(photos, tmp_path):
    put(photos, tmp_path / "test2017")
    path = tmp_path / "image_info_test2017.json"
    path.write_text(json.dumps({"images": coco(photos)["images"]}))
    store = opened(path, label_field="id")
    assert (
        len(store) == 6
        and store.read([4])[0].captions == ()
        and builders.text(store, 4).metadata["id"] == photos[4][1]["image_id"]
    )


BOXES = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"videos": []}', r"x_y\.json is no JSON list of rows, nor COCO's annotations .* nor Karpathy's splits"),
        ('{"images": [1]}', r"image 1 of .*x_y\.json is not a row"),
        ('{"images": [{"id": 1}]}', r"image 1 of .*x_y\.json has no image under a usual name.* \(there is id\)"),
        ('{"images": [{"id": 1}, {', r"row 2 of images of .*x_y\.json is no JSON"),
        ('{"images', r"x_y\.json is no JSON"),
        ('{"info": }', r"'info' of .*x_y\.json is no JSON"),
        ('{"images": [{"file_name": "../a.jpg"}]}', "must lie below"),
        (json.dumps(BOXES), r"x_y\.json has no caption under a usual name \(there is .*bbox\): name its field"),
        ('{"images": [{"file_name": "a.jpg", "caption": "x"}]}', r"such as a\.jpg, which lie in none of .*/y/"),
    ],
)
def test_what_is_wrong_with_annotations_is_said(tmp_path, text, message):
    (tmp_path / "x_y.json").write_text(text)
    with pytest.raises(CocaError, match=message) as caught:
        opened(tmp_path / "x_y.json")
    assert "\n" not in str(caught.value)
