"""Tars: names with dots, links, patterns, and what a run says of them."""

import os

import numpy as np
import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records import sharded
from coca_jax.data.records.formats import tar as tar_records
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from tests.data import builders

PNG = builders.picture(1)


def opened(path, split="train", **options):
    return records.open_records(DatasetConfig(format="tars", path=str(path), **{"holdout": 0.0, **options}), split)


def texts(store):
    return {record.key: record.captions[0] for record in store.read(range(len(store)))}


def pair(name, text="a text", kind="jpg"):
    return [(f"{name}.{kind}", PNG), (f"{name}.txt", text.encode())]


@pytest.mark.parametrize(
    "names",
    [
        [f"Track 2.0 photo {i}" for i in range(3)],
        ["v1.2.3", "v1.2.4", "folder.d/x.y"],
        ["a", "b.c", "b.d", "../up.x"],
        ["2024.05.01 12.30.jpeg", "2024.05.01 12.31.png"],
    ],
)
def test_names_with_dots_are_read_where_one_image_and_one_text_share_all_but_the_suffix(tmp_path, names):
    builders.write_tar(tmp_path / "a.tar", [one for name in names for one in pair(name, f"of {name}")])
    store = opened(tmp_path)
    assert texts(store) == {name: f"of {name}" for name in names} and not store.census.damage
    assert [store.key(i) for i in range(len(store))] == names


def test_metadata_and_labels_of_names_with_dots_are_read_too(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [*pair("x.1"), ("x.1.json", b'{"n": 5}'), ("x.1.cls", b"7")])
    (record,) = opened(tmp_path).read([0])
    assert record.key == "x.1" and record.metadata == {"n": 5, "cls": 7}


@pytest.mark.parametrize(
    "members, damage, name",
    [
        ([*pair("t.0"), ("t.0.png", PNG)], {"ambiguous key with dots": 1}, "t.0"),
        ([*pair("t"), *pair("t.1")], {"ambiguous key with dots": 1}, "t.1"),
        ([("t.0.txt", b"alone")], {"text without image": 1}, "t.0"),
        ([("t.0.jpg", PNG)], {"image without text": 1}, "t.0"),
        ([*pair("t.0"), ("t.0.jpg", b"again")], {"duplicate key": 1}, "t.0"),
    ],
)
def test_names_with_dots_that_are_not_plain_pairs_are_counted_and_named(tmp_path, members, damage, name):
    builders.write_tar(tmp_path / "a.tar", [*members, *pair("plain")])
    store = opened(tmp_path)
    assert store.census.damage == damage and "plain" in texts(store)
    assert store.census.names == {cause: f"{tmp_path}/a.tar:{name}" for cause in damage}
    assert f"{damage.popitem()[0]}: 1, e.g. {tmp_path}/a.tar:{name})" in records.summary(DatasetConfig(), store)


def test_a_tar_without_any_plain_pair_is_refused_with_a_name(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [(f"t.{i}.{kind}", PNG) for i in range(9) for kind in ("png", "gif")])
    with pytest.raises(CocaError, match=r"hold no image with a text: .*there is .*a\.tar:t\.0 \(image without text\)"):
        opened(tmp_path)


def test_further_components_of_a_plain_record_and_hidden_members_stay_out(tmp_path):
    others = [("k.left.png", PNG), ("k.seg.npy", b"x"), ("k.left.json", b"{}"), ("._k.jpg", b"x"), ("._k.txt", b"x")]
    others += [
        (".ipynb_checkpoints/k.jpg", PNG),
        (".ipynb_checkpoints/k.txt", b"x"),
        ("./l.jpg", PNG),
        ("./l.txt", b"l"),
    ]
    builders.write_tar(tmp_path / "a.tar", [*others[:2], *pair("k", kind="png"), *others[2:]])
    store = opened(tmp_path)
    assert texts(store) == {"k": "a text", "./l": "l"}
    assert store.census.damage == {"ambiguous key with dots": 1}  # k.left: an image and a text


def test_folders_of_tars_behind_links_are_followed_and_each_read_once(tmp_path):
    real, data = tmp_path / "real", tmp_path / "data"
    (real / "deep").mkdir(parents=True)
    (data / "sub").mkdir(parents=True)
    builders.write_tar(real / "deep" / "a.tar", builders.members([1]))
    builders.write_tar(data / "sub" / "b.tar", builders.members([2]))
    builders.write_tar(data / "sub" / ".hidden.tar", builders.members([9]))
    builders.write_tar(tmp_path / "outside.tar", builders.members([3]))
    for link, target in {
        data / "linked": real,
        data / "again": real / "deep",
        data / "a_way_to_sub": data / "sub",
        real / "deep" / "up": real,  # a loop
        data / "sub" / "root": data,  # another
        data / "sub" / "out": tmp_path,  # above the folder
        data / "gone": tmp_path / "nothing",
    }.items():
        os.symlink(target, link)
    os.symlink(data, tmp_path / "top")
    for place in (data, tmp_path / "top"):
        files = [file.name for file in storage.list_files(str(place))]
        assert [name for name in files if name.endswith(".tar")] == ["again/a.tar", "sub/b.tar"]
        assert len(opened(place)) == 2


def test_a_shard_that_is_a_link_to_nothing_is_named(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members([1]))
    (tmp_path / "b.tar").symlink_to(tmp_path / "nothing")
    with pytest.raises(CocaError, match=r"b\.tar was changed or removed after it was listed"):
        opened(tmp_path)
    assert len(opened(tmp_path, train_files=("a*",))) == 1


def test_patterns_with_braces_name_shards(tmp_path):
    (tmp_path / "deep").mkdir()
    for i in range(12):
        builders.write_tar(tmp_path / "deep" / f"{i:05d}.tar", builders.members([i]))
    assert len(opened(f"{tmp_path}/deep/{{00000..00010}}.tar")) == 11
    assert len(opened(f"{tmp_path}/{{deep,deep}}/00003.tar")) == 2
    store = opened(f"{tmp_path}/deep/{{00002,00007}}.tar")
    assert [record.metadata["number"] for record in store.read([0, 1])] == [2, 7]
    assert store.fingerprint == opened(tmp_path / "deep", train_files=("0000{2,7}.tar",)).fingerprint
    halves = {"train_files": ("{00000..00005}.tar",), "evaluation_files": ("{00006..00009}.tar", "0001?.tar")}
    assert [len(opened(tmp_path / "deep", split, **halves)) for split in records.SPLITS] == [6, 6]
    with pytest.raises(CocaError, match=r"deep/00012\.tar does not exist \(2 of the 4 files of .* are missing\)"):
        opened(f"{tmp_path}/deep/{{00010..00013}}.tar")
    with pytest.raises(CocaError, match="has a brace without its counterpart"):
        opened(f"{tmp_path}/deep/{{00010..00013.tar")


def test_patterns_with_braces_name_shards_in_buckets(tmp_path):
    for i in range(3):
        builders.write_tar(tmp_path / "a.tar", builders.members([i]))
        storage.write_atomically(f"memory://{tmp_path.name}/{i}.tar", (tmp_path / "a.tar").read_bytes())
    store = opened(f"memory://{tmp_path.name}/{{0..1}}.tar")
    assert [store.name(i) for i in range(2)] == [f"memory://{tmp_path.name}/{i}.tar:k{i:03d}" for i in range(2)]


def test_a_long_list_of_names_is_matched_quickly():
    selection = records.Selection(files=("{000000..199999}.tar", "x*"))
    assert all(selection.has_file(f"{i:06d}.tar") for i in range(200_000)) and selection.has_file("x.tar")
    assert not selection.has_file("200000.tar")


@pytest.mark.parametrize(
    "name, todo",
    [
        ("x.zip", "unpack it"),
        ("x.tar.gz", "unpack it"),
        ("x.tgz", "unpack it"),
        ("x.parquet", "set format=parquet"),
        ("x.tsv", "set format=folder"),
        ("x.tfrecord-00000-of-00002", "set format=tfrecords"),
        ("x.jpg", "give the folder that holds it"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(tmp_path, name, todo):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CocaError, match=rf"{name} is a file that format=tars does not read: {todo}.*it reads \.tar\)"):
        opened(tmp_path / name)


def test_a_single_tar_is_a_dataset(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(3)))
    assert len(opened(tmp_path / "a.tar")) == 3


def test_the_summary_counts_what_trains_is_held_out_and_left_out(tmp_path):
    builders.write_tar(tmp_path / "a.tar", [*builders.members(range(200)), ("alone.png", PNG)])
    dataset = DatasetConfig(format="tars", path=str(tmp_path), holdout=0.3, exclude=("number=7",))
    train, held_out = (records.open_records(dataset, split) for split in records.SPLITS)
    assert train.census.total == 200 and train.census.held_out == len(held_out) == held_out.census.held_out
    excluded = 200 - len(train) - len(held_out)
    assert records.summary(dataset, train) == (
        f"{len(train)} records train, {len(held_out)} held out, {1 + excluded} left out "
        f"(image without text: 1, e.g. {tmp_path}/a.tar:alone; excluded by the config: {excluded})"
    )
    builders.write_tar(tmp_path / "b.tar", builders.members(range(3)))
    dataset = DatasetConfig(format="tars", path=str(tmp_path), train_files=("b*",), evaluation_files=("a*",))
    assert records.summary(dataset, records.open_records(dataset, "train")) == ("3 records train, those of a* held out")


def test_the_bound_on_indices_in_memory_counts_their_rows(tmp_path):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(300)))
    all_of_it, half = opened(tmp_path, evaluation_files=("none",)), opened(tmp_path, holdout=0.5)
    for store in (all_of_it, half):
        store.read([0])
    (shard,) = half._shards.values()
    (whole,) = all_of_it._shards.values()
    assert half._held == shard.size == shard.index.size + shard.rows.nbytes and 250 > len(shard.rows) > 50
    assert all_of_it._held == whole.size > half._held


def test_a_bug_in_a_format_is_no_bad_record(tmp_path, monkeypatch):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(3)))
    store = opened(tmp_path)

    def bug(*_):
        return [][0]

    monkeypatch.setattr(tar_records, "_row", bug)
    for read in (store.read, store.read_texts):
        with pytest.raises(IndexError):
            read([0])


def test_a_shard_with_other_records_than_counted_is_bad_records(tmp_path, monkeypatch):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(4)))
    store = opened(tmp_path)
    index = tar_records.index(storage.stat(str(tmp_path / "a.tar")))
    fewer = sharded.Index(index.spans[:2], sharded.Strings.of(["k000", "k001"]))
    monkeypatch.setattr(tar_records, "index", lambda *_: fewer)
    assert [one.cause for one in store.read([0, 3])] == ["shard changed"] * 2
    assert np.all(store._ends == [4])


@pytest.mark.parametrize(
    "options, problem",
    [
        (
            {"text_fields": ("captoin",)},
            r"a\.tar \(the first 3 records\) has no field 'captoin' \(there is .*txt.*text_fields",
        ),
        (
            {"text_fields": ("txt", "{number} {nubmer}")},
            r"has no field 'nubmer' \(there is .*number.*change text_fields",
        ),
        ({"label_field": "clas"}, r"has no field 'clas' \(there is .*number.*\): change label_field"),
        ({"image_field": "left.png"}, r"no image KEY\.left\.png .*a\.tar has KEY\.png, KEY\..*\): change image_field"),
    ],
)
def test_a_configured_field_that_no_record_has_is_named_with_those_that_exist(tmp_path, options, problem):
    builders.write_tar(tmp_path / "a.tar", builders.members(range(3)))
    with pytest.raises(CocaError, match=problem):
        opened(tmp_path, **options)


def test_fields_are_looked_for_in_the_selected_records_alone(tmp_path):
    rare = [("z.png", PNG), ("z.json", b'{"kind": "rare", "alt": "a text"}')]
    builders.write_tar(tmp_path / "a.tar", [*builders.members(range(150)), *rare])
    assert texts(opened(tmp_path, text_fields=("alt",), only=("kind=rare",))) == {"z": "a text"}


def test_images_of_kinds_that_are_not_read_are_counted_by_suffix(tmp_path):
    unread = [
        ("h.heic", b"x"),
        ("h.txt", b"x"),
        ("i.1.HEIC", b"x"),
        ("i.1.txt", b"x"),
        ("j.jp2", b"x"),
        ("k.txt", b"x"),
    ]
    builders.write_tar(tmp_path / "a.tar", [*pair("a"), ("a.mask.ppm", b"x"), *unread])
    store = opened(tmp_path)
    assert texts(store) == {"a": "a text"} and store.census.damage == {
        ".heic image (not supported)": 2,
        ".jp2 image (not supported)": 1,
        "text without image": 1,
    }
    assert store.census.names[".heic image (not supported)"] == f"{tmp_path}/a.tar:h"


@pytest.mark.parametrize("name, format", [("a.parquet", "parquet"), ("a.tfrecord", "tfrecords"), ("a.jpg", "folder")])
def test_a_folder_of_another_format_is_refused_with_that_format(tmp_path, name, format):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CocaError, match=f"there is no .tar file below .*: set format={format}$"):
        opened(tmp_path)
