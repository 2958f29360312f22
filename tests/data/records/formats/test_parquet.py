"""Parquet files: Hugging Face's datasets, plain columns of bytes, and tables that name image files."""

import io
import json
import os
import threading
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records import open as records
from coca_jax.data.records import sharded
from coca_jax.data.records.formats import parquet
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.selection import Selection
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage import remote
from tests.data import builders


def opened(path, split="train", **options):
    options = {"holdout": 1e-9, **options}
    return records.open_records(DatasetConfig(format="parquet", path=str(path), **options), split)


def captions(store):
    return {record.key: record.captions for record in store.read(range(len(store)))}


def rows(numbers, **columns):
    """Hugging Face's columns of some shades."""
    return [
        {
            "image": {"bytes": builders.picture(i), "path": f"{i}.png"},
            "caption": [f"shade {i}", f"grey {i}"],
            "label": i % 2,
            "split": "test" if i % 3 == 0 else "train",
            **{name: value(i) for name, value in columns.items()},
        }
        for i in numbers
    ]


def write(path, values, row_group_size=4, names=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(values)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=row_group_size)


@pytest.fixture(autouse=True)
def fresh_caches():
    yield
    parquet._footer.cache_clear()
    parquet._small_group.cache_clear()


@pytest.fixture(params=["small groups", "large groups"])
def way(request, monkeypatch):
    if request.param == "large groups":
        monkeypatch.setattr(parquet, "_LARGEST_GROUP", 0)
        monkeypatch.setattr(parquet, "_BATCH", 3)


def test_hugging_faces_datasets_are_read_in_any_order(tmp_path, way):
    write(tmp_path / "data/train-00000-of-00002.parquet", rows(range(10)), names=["dark", "light"])
    write(tmp_path / "data/train-00001-of-00002.parquet", rows(range(10, 15)))
    write(tmp_path / "data/test-00000-of-00001.parquet", rows(range(15, 18)))
    named = {"train_files": ("data/train-*",), "evaluation_files": ("data/test-*",)}
    store, held_out = (opened(tmp_path, split, **named) for split in records.SPLITS)
    assert len(store) == 15 and len(held_out) == 3 and not store.census.damage
    wanted = [14, 0, 3, 4, 9, 3, 10]
    for i, record in zip(wanted, store.read(wanted), strict=True):
        assert record.image == builders.picture(i) and record.captions == (f"shade {i}", f"grey {i}")
        assert record.metadata["label"] == i % 2 and "image" not in record.metadata
        assert record.key == store.key(i) and builders.text(store, i).metadata == record.metadata
    assert store.key(11) == "data/train-00001-of-00002.parquet:1"
    assert store.name(11) == f"{tmp_path}/data/train-00001-of-00002.parquet:1"
    assert opened(tmp_path, label_field="label").class_names is None
    assert opened(tmp_path, label_field="label", train_files=("*train-*",)).class_names == ("dark", "light")
    assert captions(opened(tmp_path / "data/test-00000-of-00001.parquet")).keys() == {
        f"test-00000-of-00001.parquet:{i}" for i in range(3)
    }


def test_the_holdout_and_the_metadata_select_rows(tmp_path):
    write(tmp_path / "a.parquet", rows(range(60)))
    train, held_out = (opened(tmp_path, split, holdout=0.3) for split in records.SPLITS)
    assert set(captions(train)) | set(captions(held_out)) == {f"a.parquet:{i}" for i in range(60)}
    assert len(train) + len(held_out) == 60 and 8 <= len(held_out) <= 30
    write(tmp_path / "b.parquet", rows(range(30)))  # adding rows moves none
    assert set(captions(held_out)) <= set(captions(opened(tmp_path, "evaluation", holdout=0.3)))
    only = opened(tmp_path / "a.parquet", only=("split=test",))
    assert [record.metadata["split"] for record in only.read(range(20))] == ["test"] * 20 and len(only) == 20
    (tmp_path / "keys.txt").write_text("a.parquet:3\na.parquet:5\n")
    assert len(opened(tmp_path / "a.parquet", exclude_keys=str(tmp_path / "keys.txt"))) == 58


@pytest.mark.parametrize(
    "columns, options, image, texts",
    [
        ({"jpg": b"x", "text": "one"}, {}, b"x", ("one",)),
        (
            {"picture": b"x", "words": b"one", "more": ["two"]},
            {"image_field": "picture", "text_fields": ("words", "more")},
            b"x",
            ("one", "two"),
        ),
        (
            {"image": b"x", "captions": [{"text": "one"}, {"text": "two"}]},
            {"text_fields": ("captions/text",)},
            b"x",
            ("one", "two"),
        ),
        (
            {"image": b"x", "q": "what?", "a": ["cat", "dog"]},
            {"text_fields": ("{q} {a}",)},
            b"x",
            ("what? cat", "what? dog"),
        ),
        ({"image": b"x", "caption": "one|two"}, {"caption_separator": "|"}, b"x", ("one", "two")),
        (
            {
                "image": b"x",
                "text": "one",
                "thumbnail": {"bytes": b"y"},
                "more": [{"bytes": b"z"}],
                "vector": b"v" * 9_000,
            },
            {},
            b"x",
            ("one",),
        ),
        ({"image": "b.png", "text": "one"}, {}, b"file", ("one",)),
        ({"file_name": "./b.png", "text": "one"}, {}, b"file", ("one",)),
        ({"id": "b", "text": "one"}, {"image_field": "{id}.png"}, b"file", ("one",)),
        ({"image": {"bytes": None, "path": "b.png"}, "text": "one"}, {}, b"file", ("one",)),
        ({"image": {"path": "b.png"}, "text": "one"}, {"image_field": "{image/path}"}, b"file", ("one",)),
    ],
)
def test_images_and_captions_are_found_in_their_columns(tmp_path, columns, options, image, texts):
    (tmp_path / "b.png").write_bytes(b"file")
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())])
    table = pa.Table.from_pylist(
        [columns], schema if columns.get("image") == {"bytes": None, "path": "b.png"} else None
    )
    pq.write_table(table, tmp_path / "a.parquet")
    store = opened(tmp_path, **options)
    (record,) = store.read([0])
    assert builders.text(store, 0).metadata == record.metadata
    assert (record.image, record.captions) == (image, texts)
    assert not {"thumbnail", "more", "vector"} & set(record.metadata) or columns.keys() & {"picture"}


def test_rows_without_an_image_or_a_caption_are_counted_one_by_one(tmp_path, way):
    values = rows(range(8))
    values[1]["image"] = None
    values[2]["image"] = {"bytes": b"", "path": None}
    values[3]["caption"] = []
    values[4]["image"] = {"bytes": None, "path": "/etc/passwd"}
    values[5]["image"] = {"bytes": None, "path": "none.png"}
    values[6]["caption"] = None
    write(tmp_path / "a.parquet", values)
    found = [one.cause if isinstance(one, BadRecord) else one.key for one in opened(tmp_path).read(range(8))]
    assert found == [
        "a.parquet:0",
        "record without image",
        "record without image",
        "empty caption",
        "image file outside its folder",
        "missing file",
        "empty caption",
        "a.parquet:7",
    ]


def test_tables_without_images_are_refused_with_their_columns(tmp_path):
    img2dataset = [{"url": "https://x.org/1.jpg", "caption": "one", "status": "success", "key": "000"}]
    write(tmp_path / "00000.parquet", img2dataset)
    with pytest.raises(CocaError, match=r"00000\.parquet has no image under a .*url: string, caption: string.*tars"):
        opened(tmp_path)
    with pytest.raises(CocaError, match=r"has no image under 'picture'"):
        opened(tmp_path, image_field="picture")
    write(tmp_path / "00000.parquet", rows(range(2)))
    with pytest.raises(
        CocaError, match=r"has no field 'titel' \(there is image, caption, label, split\): change text_fields"
    ):
        opened(tmp_path, text_fields=("titel",))
    with pytest.raises(CocaError, match=r"has no field 'class' .*: change label_field"):
        opened(tmp_path, label_field="class")
    write(tmp_path / "00000.parquet", [{"image": b"x", "words": "one"}])
    with pytest.raises(CocaError, match=r"has no caption under a usual name \(there is image, words\)"):
        opened(tmp_path)
    write(tmp_path / "00001.parquet", [{"words": "one"}])
    with pytest.raises(CocaError, match=r"00001\.parquet has no image under a usual name"):
        opened(tmp_path, text_fields=("words",))
    for data in (b"", b"PAR1", b"<html>" * 100):
        (tmp_path / "00001.parquet").write_bytes(data)
        with pytest.raises(CocaError, match=r"00001\.parquet cannot be read as a Parquet file") as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CocaError, match=r"there is no \.parquet file at all"):
        (tmp_path / "empty").mkdir()
        opened(tmp_path / "empty")


def test_a_damaged_row_group_spoils_its_own_rows_alone(tmp_path, way):
    write(tmp_path / "a.parquet", rows(range(12)))
    place = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0).data_page_offset
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[place : place + 40] = b"\xff" * 40
    (tmp_path / "a.parquet").write_bytes(data)
    store = opened(tmp_path)
    found = [one.cause if isinstance(one, BadRecord) else "" for one in store.read(range(12))]
    assert found == [""] * 4 + ["unreadable Parquet file"] * 4 + [""] * 4
    os.unlink(tmp_path / "a.parquet")
    parquet._small_group.cache_clear()
    assert {one.cause for one in store.read(range(12))} == {"missing file"}
    parquet._footer.cache_clear()  # as if many other files had been read since
    for read in store.read, store.read_texts:
        assert {one.cause for one in read(range(12))} == {"missing file"}


def test_fingerprints_follow_the_rows_and_not_their_place(tmp_path):
    for place, words in (("x", "ab"), ("y/z", "ab"), ("other", "cd")):
        table = pa.Table.from_pylist([{"image": b"x", "text": word} for word in words])
        (tmp_path / place).mkdir(parents=True)
        pq.write_table(table, tmp_path / place / "a.parquet")
    assert os.path.getsize(tmp_path / "x/a.parquet") == os.path.getsize(tmp_path / "other/a.parquet")
    x, y, other = (opened(tmp_path / place).fingerprint for place in ("x", "y/z", "other"))
    assert x == y != other


def test_buckets_are_read_by_ranges(tmp_path, monkeypatch, way):
    values = rows(range(12), noise=lambda i: np.random.default_rng(i).bytes(400_000).hex())
    write(tmp_path / "a.parquet", values, row_group_size=2)
    storage.write_atomically(f"memory://{tmp_path.name}/a.parquet", (tmp_path / "a.parquet").read_bytes())
    here, there = opened(tmp_path), opened(f"memory://{tmp_path.name}")
    monkeypatch.setattr(storage, "_BUFFER", 64 * 1024)
    ranges, read_range = [], remote.read_range
    monkeypatch.setattr(remote, "read_range", lambda *a: ranges.append(a[1:]) or read_range(*a))
    assert there.read([7]) == here.read([7])
    assert 0 < sum(end - start for start, end in ranges) < 2.5e6 < os.path.getsize(tmp_path / "a.parquet")
    assert there.read(range(12)) == here.read(range(12))


def test_large_row_groups_do_not_fill_the_memory(tmp_path):
    values = [{"image": np.random.default_rng(i).bytes(1_000_000), "caption": f"shade {i}"} for i in range(60)]
    write(tmp_path / "a.parquet", values, row_group_size=60)
    store = opened(tmp_path)
    del values
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    highest = pool.max_memory()
    (record,) = store.read([58])
    assert record.captions == ("shade 58",) and pa.total_allocated_bytes() - before < 1_000_000
    assert max(highest, before + 40_000_000) >= pool.max_memory() and parquet._small_group.cache_info().currsize == 0
    tracemalloc.start()
    store.read_texts(range(60))  # reads no image
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_batches_of_labelled_rows_have_the_files_own_class_names(tmp_path):
    write(tmp_path / "a.parquet", rows(range(40)), names=["dark", "light"])
    labels = {"label_field": "label", "prompts": ("a {} thing.",)}
    config = builders.config(format="parquet", path=str(tmp_path), **labels)
    vocabulary = train_vocabulary(["a dark thing.", "a light thing."] * 20, 40)
    batch = Pipeline(config, vocabulary).batch(3)
    texts = [f"a {('dark', 'light')[shade % 2]} thing." for shade in builders.shades(batch)]
    assert vocabulary.decode(batch["text"]) == texts


def test_no_thread_of_arrows_calls_the_file(tmp_path, monkeypatch):
    callers = set()

    class Watched(io.FileIO):
        def read(self, *arguments):
            callers.add(type(threading.current_thread()))
            return super().read(*arguments)

    monkeypatch.setattr(storage, "open_file", lambda file: Watched(file.path))
    write(tmp_path / "a.parquet", rows(range(9)))
    assert len(captions(opened(tmp_path))) == 9
    assert callers <= {
        type(threading.main_thread()),
        threading.Thread,
    }  # others are threads that Python has not started


@pytest.mark.parametrize(
    "condition, held_out", [(("split=test",), {0, 3, 6, 9}), (("label=1", "split=test"), {0, 1, 3, 5, 6, 7, 9, 11})]
)
def test_metadata_says_which_rows_are_held_out_with_a_cached_selection_too(tmp_path, monkeypatch, condition, held_out):
    monkeypatch.setattr(sharded, "_LARGE", 1)
    met = Selection.met
    read = []
    monkeypatch.setattr(Selection, "met", lambda *arguments: read.append(1) or met(*arguments))
    write(tmp_path / "a.parquet", rows(range(12)))
    whole = set(range(12))
    for split, numbers in (("evaluation", held_out), ("train", whole - held_out), ("evaluation", held_out)):
        store = opened(tmp_path, split, holdout=DatasetConfig.holdout, holdout_where=condition)
        assert {int(own[0].split()[1]) for own in captions(store).values()} == numbers
    assert len(read) == 1  # the others are from the cache
