"""Stores of tars, clean and dirty, and what all stores have in common."""

import dataclasses
import json
import os

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records import sharded
from coca_jax.data.records.formats import tar as tar_records
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from tests.data import builders


def tars(path, **options):
    return DatasetConfig(format="tars", path=str(path), **options)


def folder(path, **options):
    return DatasetConfig(format="folder", path=str(path), **options)


def keys(store):
    return [store.key(i) for i in range(len(store))]


def test_tar_records_are_reached_in_any_order(tmp_path):
    builders.write_tar(tmp_path / "b-0.tar", builders.members(range(5, 9)))
    builders.write_tar(tmp_path / "a-0.tar", builders.members(range(5)))
    config = tars(tmp_path, evaluation_files=("b*",))
    store = records.open_records(config, "train")
    assert keys(store) == [f"k{i:03d}" for i in range(5)]
    for i in (3, 0, 4, 3):
        assert builders.record(store, i).image == builders.picture(i) and builders.record(store, i).captions == (
            f"shade {i}",
        )
        assert (
            builders.record(store, i).metadata["number"] == i
            and builders.text(store, i).captions == builders.record(store, i).captions
        )
        assert store.name(i) == f"{tmp_path}/a-0.tar:k{i:03d}" and store.read([i]) == [builders.record(store, i)]
        assert builders.record(store, i).key == store.key(i)
    assert store.class_names is None
    assert keys(records.open_records(config, "evaluation")) == [f"k{i:03d}" for i in range(5, 9)]


def test_captions_may_stand_in_the_json_and_names_in_folders(tmp_path):
    picture = builders.picture(1)
    builders.write_tar(
        tmp_path / "a.tar",
        [
            ("x/one.v2.JPG", picture),
            ("x/one.json", json.dumps({"captions": ["a  b", "", "c"]}).encode()),
            ("x/one.jpg", picture),
            ("x/one.v2.txt", b"another"),
            ("y/one.png", picture),
            ("y/one.txt", "\ufeffBOM and\nlines ".encode()),
            ("y/one.json", b"{broken"),
            ("../up.png", picture),
            ("../up.txt", b"never extracted"),
        ],
    )
    store = records.open_records(tars(tmp_path, evaluation_files=("none*",)), "train")
    found = {store.key(i): builders.text(store, i).captions for i in range(len(store))}
    assert found == {"x/one": ("a b", "c"), "y/one": ("BOM and lines",), "../up": ("never extracted",)}
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.index"]


def test_a_broken_tail_keeps_what_stands_before_it(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    whole = (tmp_path / "a.tar").read_bytes()
    seen = set()
    for cut in range(512, 40_000, 1_700):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        try:
            store = records.open_records(tars(tmp_path, evaluation_files=("z*",)), "train")
        except CocaError:
            assert cut < 2_048  # not one whole record
            continue
        for i in range(len(store)):
            assert builders.record(store, i).image == builders.picture(i)
        assert store.census.damage.get("broken tar tail", 0) <= 1
        seen.add((len(store), bool(store.census.damage.get("broken tar tail"))))
    assert len(seen) > 10 and sum(damaged for _, damaged in seen) > 5  # a cut in padding loses nothing
    (tmp_path / "a.tar").write_bytes(whole[: 5 * 3_072 + 1_540])  # within the sixth text
    store = records.open_records(tars(tmp_path, evaluation_files=("z*",)), "train")
    assert len(store) == 5 and store.census.damage == {"broken tar tail": 1, "image without text": 1}
    (tmp_path / "a.tar").write_bytes(whole[:1_536] + b"junk" * 300 + whole[4_096:])
    store = records.open_records(tars(tmp_path, evaluation_files=("z*",)), "train")
    assert len(store) == 1 and store.census.damage["broken tar tail"] == 1


def test_bad_texts_of_tars_are_told_apart(tmp_path):
    p = builders.picture(1)
    builders.write_tar(
        tmp_path / "a.tar",
        [
            ("a.png", p),
            ("a.txt", b" \n"),
            ("b.png", p),
            ("b.txt", b"\xff\xfe"),
            ("c.png", p),
            ("c.json", b"[1]"),
            ("d.png", p),
            ("e.txt", b"no picture"),
        ],
    )
    store = records.open_records(tars(tmp_path, evaluation_files=("z*",)), "train")
    causes = []
    for i in range(len(store)):
        with pytest.raises(BadRecord) as caught:
            builders.record(store, i)
        causes.append(caught.value.cause)
    assert causes == ["empty caption", "caption is not UTF-8", "empty caption"]
    assert store.census.damage == {"image without text": 1, "text without image": 1}


def test_holding_out_and_excluding(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(60), split="x") + builders.members([60], split="y"))
    config = tars(tmp_path, holdout=0.3)
    train, held_out = (records.open_records(config, split) for split in records.SPLITS)
    assert len(train) + len(held_out) == 61 and not set(keys(train)) & set(keys(held_out))
    assert 8 <= len(held_out) <= 30
    builders.write_tar(tmp_path / "b.tar", builders.members(range(61, 100)))  # adding records moves none
    assert set(keys(held_out)) <= set(keys(records.open_records(config, "evaluation")))
    assert held_out.fingerprint != records.open_records(config, "evaluation").fingerprint
    whole = tars(tmp_path, evaluation_files=("b*",))
    excluding = dataclasses.replace(whole, exclude=("split=y", "number=3"))
    assert set(keys(records.open_records(whole, "train"))) - set(keys(records.open_records(excluding, "train"))) == {
        "k060",
        "k003",
    }
    with pytest.raises(CocaError, match="'split': write it as field=value"):
        records.open_records(dataclasses.replace(whole, exclude=("split",)), "train")
    with pytest.raises(CocaError, match=r"none of the 61 records .* left for train: change"):
        records.open_records(dataclasses.replace(whole, exclude=("split=x", "split=y")), "train")


@pytest.mark.parametrize("kind", [tars, folder])
def test_metadata_can_say_which_records_are_held_out(tmp_path, kind):
    members = builders.members(range(6), split="train") + builders.members(range(6, 9), split="val")
    members += builders.members(range(9, 11), split="test")
    builders.write_tar(tmp_path / "a.tar", members)
    builders.write_folder(tmp_path, range(11))
    rows = [json.loads(data) for name, data in members if name.endswith(".json")]
    manifest = (json.dumps({"file_name": f"p{row['number']:03d}.jpg", **row}) for row in rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(manifest))
    config = kind(tmp_path if kind is tars else tmp_path / "rows.jsonl", text_fields=("name",))
    config = dataclasses.replace(config, holdout_where=("split=val", "split=test"))
    train, held_out = (records.open_records(config, split) for split in records.SPLITS)
    numbers = [[int(key[1:4]) for key in keys(store)] for store in (train, held_out)]
    assert numbers == [[*range(6)], [*range(6, 11)]]
    assert records.summary(config, train).startswith("6 records train, 5 held out")
    without_test = dataclasses.replace(config, only=("split=train", "split=val"))
    assert [len(records.open_records(without_test, split)) for split in records.SPLITS] == [6, 3]
    with pytest.raises(records.EmptySplit, match=r"left for evaluation \(there is no field 'part', but .*change the"):
        records.open_records(dataclasses.replace(config, holdout_where=("part=test",)), "evaluation")
    for key, condition in (("exclude", "split=train"), ("only", "split=val")):  # neither is why nothing is held out
        harmless = dataclasses.replace(config, holdout_where=(), holdout=1e-9, **{key: (condition,)})
        with pytest.raises(records.EmptySplit, match=r"left for evaluation: change the dataset's holdout( or only)?$"):
            records.open_records(harmless, "evaluation")
    with pytest.raises(
        records.EmptySplit,
        match=r"none of 11 records has split=tset, but train, val, test\): .* dataset's holdout_where$",
    ):
        records.open_records(dataclasses.replace(config, holdout_where=("split=tset",)), "evaluation")
    with pytest.raises(CocaError, match=r"holdout_where of .* has 'test': write it as field=value"):
        records.open_records(dataclasses.replace(config, holdout_where=("test",)), "train")


@pytest.mark.parametrize("kind", [tars, folder])
def test_a_field_of_only_that_no_record_has_is_named_if_nothing_is_left(tmp_path, kind):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(3)))
    builders.write_folder(tmp_path, range(3))
    with pytest.raises(CocaError, match=r"left for train \(there is no field 'splt', but .*\): change the dataset's"):
        records.open_records(kind(tmp_path, holdout=0.0, only=("splt=x",)), "train")


def test_a_split_without_records_stays_one_whatever_the_others_lack(tmp_path):
    members = [(f"{key}.{kind}", data) for key in "ab" for kind, data in (("png", b"x"), ("json", b'{"lang": "en"}'))]
    builders.write_tar(tmp_path / "a.tar", members)
    with pytest.raises(records.EmptySplit):
        records.open_records(tars(tmp_path, text_fields=("caption",), only=("lang=fr",)), "evaluation")


def test_missing_folders_and_tars_are_named(tmp_path):
    with pytest.raises(CocaError, match=r"nowhere does not exist"):
        records.open_records(tars(tmp_path / "nowhere"), "train")
    with pytest.raises(CocaError, match=r"nowhere does not exist"):
        records.open_records(folder(tmp_path / "nowhere"), "train")
    with pytest.raises(CocaError, match=r"there is no .tar file at all"):
        records.open_records(tars(tmp_path), "train")
    (tmp_path / "page.tar").write_text("<html>" * 500)
    with pytest.raises(CocaError, match=r"page\.tar cannot be read as a tar"):
        records.open_records(tars(tmp_path), "train")
    with pytest.raises(CocaError, match=r"matches q\* \(there is page\.tar\)"):
        records.open_records(tars(tmp_path, train_files=("q*",)), "train")
    builders.write_tar(tmp_path / "page.tar", [("a.png", b"x"), ("b.txt", b"x")])
    with pytest.raises(CocaError, match=r"hold no image with a text: .*page.tar:a .image without text"):
        records.open_records(tars(tmp_path), "train")


def whole(path, **options):
    return records.open_records(tars(path, evaluation_files=("none*",), **options), "train")


def test_neighbours_are_read_together_in_the_order_asked_for(tmp_path, monkeypatch):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(30)))
    builders.write_tar(tmp_path / "b.tar", builders.members(range(30, 50)))
    store = whole(tmp_path)
    reads, read_range = [], storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *a: reads.append(a[:3]) or read_range(*a))
    wanted = [31, 4, 3, 5, 49, 4, 0]
    found = store.read(wanted)
    assert [record.image for record in found] == [builders.picture(i) for i in wanted]
    assert [record.captions for record in found] == [(f"shade {i}",) for i in wanted]
    assert [record.metadata["number"] for record in found] == wanted
    assert len(reads) == 2
    with pytest.raises(IndexError):
        builders.record(store, 50)
    with pytest.raises(IndexError):
        store.read([-1])


def test_the_second_of_a_duplicate_key_is_counted_and_left_out(tmp_path):
    builders.write_tar(
        tmp_path / "a.tar",
        [
            *builders.members([1, 2]),
            ("k001.png", builders.picture(9)),
            ("k001.txt", b"another"),
            ("k002.jpg", b"one more"),
        ],
    )
    store = whole(tmp_path)
    assert keys(store) == ["k001", "k002"] and builders.record(store, 0).captions == ("shade 1",)
    assert builders.record(store, 0).image == builders.picture(1)
    assert store.census.damage == {"duplicate key": 1} and builders.record(store, 1).image == builders.picture(2)


def test_labels_make_texts_superfluous_and_clips_are_pictures(tmp_path):
    builders.write_tar(
        tmp_path / "a.tar",
        [
            ("a.mp4", b"clip"),
            ("a.cls", b" 3\n"),
            ("b.gif", b"gif"),
            ("b.cls", b"cat"),
            ("c.tif", b"x"),
            ("c.txt", b"\xff"),
            ("d.cls", b"5"),
        ],
    )
    with_texts = whole(tmp_path)
    assert keys(with_texts) == ["c"] and with_texts.census.damage == {"image without text": 2, "text without image": 1}
    store = whole(tmp_path, label_field="cls")
    assert [
        (builders.record(store, i).image, builders.record(store, i).captions, dict(builders.record(store, i).metadata))
        for i in range(3)
    ] == [
        (b"clip", (), {"cls": 3}),
        (b"gif", (), {"cls": "cat"}),
        (b"x", (), {}),
    ]
    assert store.census.damage == {"text without image": 1} and store.fingerprint != with_texts.fingerprint


def test_fields_choose_the_picture_and_the_texts(tmp_path):
    row = json.dumps({"question": "what?", "answers": ["a cat", "cat"], "caption": "plain"}).encode()
    members = [("a.left.png", b"left"), ("a.jpg", b"plain"), ("a.txt", b"text"), ("a.json", row)]
    builders.write_tar(tmp_path / "a.tar", members)
    assert builders.record(whole(tmp_path), 0).image == b"plain" and builders.record(whole(tmp_path), 0).captions == (
        "text",
    )
    chosen = builders.record(
        whole(tmp_path, image_field="left.png", text_fields=("{question} {answers}", "caption")), 0
    )
    assert chosen.image == b"left" and chosen.captions == ("what? a cat", "what? cat", "plain")
    assert builders.record(whole(tmp_path), 0).image == b"plain"  # each choice has an index of its own
    with pytest.raises(CocaError, match=r"text_fields has '\{question'"):
        whole(tmp_path, text_fields=("{question",))


def test_a_shard_that_disappears_or_changes_mid_run_is_a_bad_record(tmp_path, monkeypatch):
    for name in "abc":
        builders.write_tar(tmp_path / f"{name}.tar", builders.members(range(4)))
    store = whole(tmp_path)
    assert builders.record(store, 0).key == "k000"
    os.truncate(tmp_path / "a.tar", 3_100)
    os.unlink(tmp_path / "b.tar")
    causes = [found.cause if isinstance(found, BadRecord) else found.key for found in store.read(range(12))]
    assert causes == ["k000", *["unreadable tar"] * 3, *["missing file"] * 4, "k000", "k001", "k002", "k003"]
    assert store.name(5) == f"{tmp_path}/b.tar:k001" and store.read_texts([5])[0].cause == "missing file"
    fresh = whole(tmp_path)  # its indices have left the memory
    monkeypatch.setattr(sharded, "_MEMORY", 0)
    fresh._open(1)
    for file in tmp_path.iterdir():
        file.unlink()
    assert {found.cause for found in fresh.read(range(len(fresh)))} == {"missing file"}
    assert fresh.name(0) == f"{tmp_path}/a.tar:0"


def test_only_the_indices_in_use_stay_in_memory(tmp_path, monkeypatch):
    for i in range(20):
        builders.write_tar(tmp_path / f"{i:02d}.tar", builders.members(range(i, i + 3)))
    monkeypatch.setattr(sharded, "_MEMORY", 5_000)
    store = whole(tmp_path)
    assert not store._shards  # opening has counted, and kept nothing
    assert [builders.record(store, i).metadata["number"] for i in range(60)] == [i // 3 + i % 3 for i in range(60)]
    assert 1 <= len(store._shards) <= 5 and store._held <= 5_000


def test_a_large_set_opens_from_its_counts(tmp_path, monkeypatch):
    for i in range(6):
        builders.write_tar(tmp_path / f"{i}.tar", [*builders.members(range(i, i + 3)), ("x.png", b"alone")])
    monkeypatch.setattr(sharded, "_MANY", 6)
    first = records.open_records(tars(tmp_path), "train")
    with monkeypatch.context() as patch:
        patch.setattr(tar_records, "index", lambda *_: pytest.fail("an index was opened"))
        again = records.open_records(tars(tmp_path), "train")
    assert (len(again), again.fingerprint, again.census.damage) == (
        len(first),
        first.fingerprint,
        {"image without text": 6},
    )
    assert keys(again) == keys(first)
    builders.write_tar(tmp_path / "0.tar", builders.members(range(1)))
    assert records.open_records(tars(tmp_path), "train").census.damage == {"image without text": 5}


def test_exclusions_are_found_once(tmp_path, monkeypatch):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(40)))
    monkeypatch.setattr(sharded, "_LARGE", 40)
    first = whole(tmp_path, exclude=("number=3",))
    with monkeypatch.context() as patch:
        patch.setattr(tar_records.TarRecords, "_read", lambda *_, **__: pytest.fail("metadata was read"))
        again = whole(tmp_path, exclude=("number=3",))
    assert keys(again) == keys(first) == [f"k{i:03d}" for i in range(40) if i != 3]
    assert again.fingerprint == first.fingerprint != whole(tmp_path).fingerprint
    assert whole(tmp_path, exclude=("number=4",)).fingerprint != first.fingerprint
    for number in (3, 4):
        assert keys(whole(tmp_path, only=(f"number={number}",))) == [f"k{number:03d}"]


def test_fingerprints_follow_the_records_and_not_their_place(tmp_path):
    for place, note in (("x", ""), ("y/z", ""), ("other", "n" * 600)):
        (tmp_path / place).mkdir(parents=True)
        builders.write_tar(tmp_path / place / "a.tar", builders.members(range(5), note=note))
    x, y, other = (whole(tmp_path / place).fingerprint for place in ("x", "y/z", "other"))
    assert x == y != other


def test_tars_in_a_bucket(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(12)))
    storage.write_atomically("memory://records/deep/a.tar", (tmp_path / "a.tar").read_bytes())
    there, here = (records.open_records(tars(place), "train") for place in ("memory://records", tmp_path))
    assert keys(there) == keys(here) and there.read(range(len(there))) == here.read(range(len(here)))
    assert there.name(0).startswith("memory://records/deep/a.tar:k")
    with pytest.raises(CocaError, match="there is nothing below memory://records/none"):
        records.open_records(tars("memory://records/none"), "train")


def test_the_emoji(shared_data):
    config = tars(shared_data / "data/emoji", evaluation_files=("twemoji*",))
    train, held_out = (records.open_records(config, split) for split in records.SPLITS)
    assert len(train) + len(held_out) == 7_283 and not train.census.damage
    assert (
        builders.record(held_out, 0).captions == ("grinning face",)
        and builders.text(held_out, 0).metadata["vendor"] == "twemoji"
    )
    seen = records.open_records(dataclasses.replace(config, exclude=("split=heldout_concept",)), "train")
    assert len(seen) < len(train) and builders.text(seen, len(seen) - 1).metadata["split"] == "train"


def crafted(header: bytes, size: bytes) -> bytes:
    """A tar's header with another size and the checksum that fits it."""
    header = header[:124] + size + header[136:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,
        b"\xff" * 10 + b"\xfc\0",
        b"\x80" + b"\x7f" * 11,
        b"00000000999\0",
        b"-0000003000\0",
        b"77777777777\0",
        b"junk" * 3,
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [b"0", b"5", b"V", b"L", b"x"])
def test_headers_with_crafted_sizes_end_a_tar(tmp_path, size, kind):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(4)))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    place = next(place for place in range(0, len(data), 512) if data[place : place + 9] == b"k002.png\0")
    data[place + 156 : place + 157] = kind
    data[place : place + 512] = crafted(bytes(data[place : place + 512]), size)
    (tmp_path / "a.tar").write_bytes(data)
    source = tars(tmp_path, evaluation_files=("none*",))
    assert keys(records.open_records(source, "train"))[:2] == ["k000", "k001"]
    (tmp_path / "a.tar").write_bytes(data[place:])
    try:
        records.open_records(source, "train")
    except CocaError as error:
        assert "a.tar" in str(error)


@pytest.mark.parametrize("kind", [tars, folder])
def test_without_a_holdout_all_records_train(tmp_path, kind):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(20)))
    builders.write_folder(tmp_path, range(20))
    assert len(records.open_records(kind(tmp_path, holdout=0.0), "train")) == 20
    with pytest.raises(CocaError, match=r"holdout is 0.*none is left to evaluate: set the dataset's holdout"):
        records.open_records(kind(tmp_path, holdout=0.0), "evaluation")
