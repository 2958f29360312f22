"""Stores of tars and folders, clean and dirty."""

import dataclasses
import json

import pytest

from coca_jax.config import DataConfig
from coca_jax.data import corpus, evaluation_sets, records
from coca_jax.data.images import BadRecord
from coca_jax.errors import CocaError

from tests.data import builders


def tars(path, **options):
    return DataConfig(task="tars", path=str(path), **options)


def folder(path, **options):
    return DataConfig(task="folder", path=str(path), **options)


def keys(store):
    return [store.key(i) for i in range(len(store))]


def test_tar_records_are_reached_in_any_order(tmp_path):
    builders.write_tar(tmp_path / "b-0.tar", builders.members(range(5, 9)))
    builders.write_tar(tmp_path / "a-0.tar", builders.members(range(5)))
    config = tars(tmp_path, evaluation_files=("b*",))
    store = records.open_store(config, "train")
    assert keys(store) == [f"k{i:03d}" for i in range(5)]
    for i in (3, 0, 4, 3):
        assert store[i].image == builders.picture(i) and store[i].captions == (f"shade {i}",)
        assert store[i].metadata["number"] == i and store.captions(i) == store[i].captions
        assert store.name(i) == f"{tmp_path}/a-0.tar:k{i:03d}"
    assert keys(records.open_store(config, "evaluation")) == [f"k{i:03d}" for i in range(5, 9)]


def test_captions_may_stand_in_the_json_and_names_in_folders(tmp_path):
    picture = builders.picture(1)
    builders.write_tar(tmp_path / "a.tar", [
        ("x/one.v2.JPG", picture), ("x/one.json", json.dumps({"captions": ["a  b", "", "c"]}).encode()),
        ("x/one.jpg", picture),
        ("y/one.png", picture), ("y/one.txt", "\ufeffBOM and\nlines ".encode()), ("y/one.json", b"{broken"),
        ("../up.png", picture), ("../up.txt", b"never extracted"),
    ])
    store = records.open_store(tars(tmp_path, evaluation_files=("none*",)), "train")
    found = {store.key(i): store.captions(i) for i in range(len(store))}
    assert found == {"x/one": ("a b", "c"), "y/one": ("BOM and lines",), "../up": ("never extracted",)}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.tar"]


def test_a_broken_tail_keeps_what_stands_before_it(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    whole = (tmp_path / "a.tar").read_bytes()
    seen = set()
    for cut in range(512, 40_000, 1_700):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        try:
            store = records.open_store(tars(tmp_path, evaluation_files=("z*",)), "train")
        except CocaError:
            assert cut < 2_048  # not one whole record
            continue
        for i in range(len(store)):
            assert store[i].image == builders.picture(i)
        assert store.damage.get("broken tar tail", 0) <= 1
        seen.add((len(store), bool(store.damage.get("broken tar tail"))))
    assert len(seen) > 10 and sum(damaged for _, damaged in seen) > 5  # a cut in padding loses nothing
    (tmp_path / "a.tar").write_bytes(whole[:1_536] + b"junk" * 300 + whole[4_096:])
    assert len(records.open_store(tars(tmp_path, evaluation_files=("z*",)), "train")) == 1


def test_bad_texts_of_tars_are_told_apart(tmp_path):
    p = builders.picture(1)
    builders.write_tar(tmp_path / "a.tar", [
        ("a.png", p), ("a.txt", b" \n"), ("b.png", p), ("b.txt", b"\xff\xfe"), ("c.png", p), ("c.json", b"[1]"),
        ("d.png", p), ("e.txt", b"no picture")])
    store = records.open_store(tars(tmp_path, evaluation_files=("z*",)), "train")
    causes = []
    for i in range(len(store)):
        with pytest.raises(BadRecord) as caught:
            store[i]
        causes.append(caught.value.cause)
    assert causes == ["empty caption", "caption is not UTF-8", "empty caption"]
    assert store.damage == {"picture without text": 1}


def test_holding_out_and_excluding(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(60), split="x") + builders.members([60], split="y"))
    config = tars(tmp_path, holdout=0.3)
    train, held_out = (records.open_store(config, split) for split in records.SPLITS)
    assert len(train) + len(held_out) == 61 and not set(keys(train)) & set(keys(held_out))
    assert 8 <= len(held_out) <= 30
    builders.write_tar(tmp_path / "b.tar", builders.members(range(61, 100)))  # adding records moves none
    assert set(keys(held_out)) <= set(keys(records.open_store(config, "evaluation")))
    assert held_out.fingerprint != records.open_store(config, "evaluation").fingerprint
    whole = tars(tmp_path, evaluation_files=("b*",))
    excluding = dataclasses.replace(whole, exclude=("split=y", "number=3"))
    assert set(keys(records.open_store(whole, "train"))) - set(keys(records.open_store(excluding, "train"))) == {
        "k060", "k003"}
    with pytest.raises(CocaError, match="'split': write it as field=value"):
        records.open_store(dataclasses.replace(whole, exclude=("split",)), "train")
    with pytest.raises(CocaError, match="none of the 61 records .* left for train"):
        records.open_store(dataclasses.replace(whole, exclude=("split=x", "split=y")), "train")


def test_missing_folders_and_tars_are_named(tmp_path):
    with pytest.raises(CocaError, match=r"nowhere does not exist"):
        records.open_store(tars(tmp_path / "nowhere"), "train")
    with pytest.raises(CocaError, match=r"nowhere does not exist"):
        records.open_store(folder(tmp_path / "nowhere"), "train")
    with pytest.raises(CocaError, match="there is no .tar file at all"):
        records.open_store(tars(tmp_path), "train")
    (tmp_path / "page.tar").write_text("<html>" * 500)
    with pytest.raises(CocaError, match=r"page\.tar cannot be read as a tar"):
        records.open_store(tars(tmp_path), "train")
    with pytest.raises(CocaError, match=r"matches q\* \(there is page\.tar\)"):
        records.open_store(tars(tmp_path, train_files=("q*",)), "train")
    builders.write_tar(tmp_path / "page.tar", [("a.png", b"x"), ("b.txt", b"x")])
    with pytest.raises(CocaError, match="hold no picture with a text"):
        records.open_store(tars(tmp_path), "train")


def test_a_folder_with_a_text_beside_each_picture(tmp_path):
    builders.write_folder(tmp_path, range(30))
    (tmp_path / "lonely.png").write_bytes(b"x")
    train = records.open_store(folder(tmp_path), "train")
    held_out = records.open_store(folder(tmp_path), "evaluation")
    assert len(train) + len(held_out) == 30 and train.damage == {"picture without text": 1}
    for i in range(len(train)):
        assert train[i].captions == (f"shade {int(train.key(i)[1:4])}",) and train[i].image[:2] == b"\xff\xd8"
    (tmp_path / train.key(0)).unlink()
    with pytest.raises(BadRecord, match="missing file"):
        train[0]


@pytest.mark.parametrize("name, text", [
    ("captions.jsonl", '{"file_name": "p001.jpg", "captions": ["one", "uno"], "n": 1}\n\n'
                       '{"file_name": "p002.jpg", "caption": "two"}\n{"file_name": "deep.jpg", "text": "down"}\n'),
    ("captions.csv", 'file_name,caption,n\np001.jpg,one,1\np002.jpg,two,2\ndeep.jpg,down,3\np001.jpg,uno,1\n'),
])
def test_a_folder_with_one_captions_file(tmp_path, name, text):
    builders.write_folder(tmp_path, [1, 2, 3])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep.jpg").write_bytes(builders.picture(9, "JPEG"))
    (tmp_path / name).write_text(text)
    store = records.open_store(folder(tmp_path, holdout=1e-9), "train")
    assert {store.key(i): store[i].captions for i in range(len(store))} == {
        "p001.jpg": ("one", "uno"), "p002.jpg": ("two",), "images/deep.jpg": ("down",)}
    assert str(store.metadata(keys(store).index("p001.jpg"))["n"]) == "1"


@pytest.mark.parametrize("name, text, message", [
    ("captions.jsonl", '{"file_name": "a.jpg", "caption": "x"}\nnot json', r"line 2 of .* is not a row"),
    ("captions.jsonl", '{"caption": "x"}', "line 1 of .* is not a row"),
    ("captions.jsonl", '{"file_name": "../../etc/passwd", "caption": "x"}', "must lie below"),
    ("captions.jsonl", '{"file_name": "/etc/passwd", "caption": "x"}', "must lie below"),
    ("captions.jsonl", "", "have no captions: put a text file .* or add captions.jsonl"),
    ("captions.csv", "file,caption\na.jpg,x", "needs the columns file_name and caption"),
    ("captions.csv", "file_name,caption\n..\\a.jpg,x", "must lie below"),
    ("a.jpg", "", "have no captions: put a text file .* or add captions.jsonl"),
    ("a.md", "", "there is no picture below"),
])
def test_what_is_wrong_with_a_folder_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CocaError, match=message) as caught:
        records.open_store(folder(tmp_path), "train")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_captions_for_a_vocabulary_come_from_training_records_alone(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [*builders.members(range(3)), ("bad.png", b""), ("bad.txt", b"")])
    builders.write_tar(tmp_path / "b.tar", builders.members(range(3, 9)))
    config = builders.config(task="tars", path=str(tmp_path), evaluation_files=("b*",))
    assert list(corpus.training_captions(config)) == ["shade 0", "shade 1", "shade 2"]


def test_the_evaluation_set_of_a_store(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members([0]))
    dirt = [("bad.png", b"<html>"), ("bad.txt", b"x"), ("bad.json", b'{"name": "x"}')]
    builders.write_tar(tmp_path / "b.tar", builders.members(range(10)) + dirt)
    config = builders.config(task="tars", name="greys", path=str(tmp_path), evaluation_files=("b*",))
    (found,) = evaluation_sets.evaluation_sets(config)
    assert found.name == "greys" and found.images.shape == (10, builders.SIZE, builders.SIZE, 3)
    assert found.images[:, 0, 0, 0].tolist() == list(range(10)) and found.captions[3] == ("shade 3",)
    assert found.meaning(" Shade  3") == found.meaning("shade 3") != found.meaning("shade 4")
    assert found.meaning(" ") is None
    (by_name,) = found.classifications
    assert [by_name.labels[t] for t in by_name.targets] == [f"shade {i}" for i in range(10)]
    few = builders.config(task="tars", path=str(tmp_path), evaluation_files=("b*",), examples=4)
    assert len(evaluation_sets.evaluation_sets(few)[0].images) == 3  # four chosen, evenly; the last one is the dirt


def test_the_emoji_and_the_photos(shared_data):
    config = tars(shared_data / "data/emoji", evaluation_files=("twemoji*",))
    train, held_out = (records.open_store(config, split) for split in records.SPLITS)
    assert len(train) + len(held_out) == 7_283 and not train.damage
    assert held_out[0].captions == ("grinning face",) and held_out.metadata(0)["vendor"] == "twemoji"
    seen = records.open_store(dataclasses.replace(config, exclude=("split=heldout_concept",)), "train")
    assert len(seen) < len(train) and seen.metadata(len(seen) - 1)["split"] == "train"
    photos = folder(shared_data / "data/coco_photos")
    stores = [records.open_store(photos, split) for split in records.SPLITS]
    assert sum(map(len, stores)) == 119 and len(stores[0].captions(0)) == 5
