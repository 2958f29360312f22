"""Stores of tf.train.Examples: TFRecords, ArrayRecords, prepared TFDS sets."""

import http.server
import os
import threading

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.images import decode as images
from coca_jax.data.records import open as records
from coca_jax.data.records import selection, sharded
from coca_jax.data.records.formats import array_record
from coca_jax.data.records.formats import tf_example as example_records
from coca_jax.data.records.formats import tfds as tfds_records
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage import remote
from tests.data import builders

WRITERS = {
    "tfrecords": (builders.write_tfrecord, "tfrecord"),
    "array_records": (builders.write_array_record, "array_record"),
}


def whole(format, path, **options):
    return records.open_records(
        DatasetConfig(format=format, path=str(path), evaluation_files=("none*",), **options), "train"
    )


def keys(store):
    return [store.key(i) for i in range(len(store))]


@pytest.fixture(params=WRITERS)
def kind(request):
    return request.param


@pytest.fixture
def write(kind, tmp_path):
    def write(name, payloads):
        writer, ending = WRITERS[kind]
        writer(tmp_path / f"{name}.{ending}", payloads)
        return tmp_path / f"{name}.{ending}"

    return write


def test_examples_are_reached_in_any_order(kind, write, tmp_path):
    write("a", builders.examples(range(7)))
    write("b", builders.examples(range(7, 10)))
    (tmp_path / "notes.txt").write_text("no shard")
    for _ in range(2):
        store = whole(kind, tmp_path)
        wanted = [8, 3, 2, 9, 0, 3]
        found = store.read(wanted)
        assert [record.image for record in found] == [builders.picture(i) for i in wanted]
        assert [record.captions for record in found] == [(f"shade {i}",) for i in wanted]
        assert found[0].metadata == {"caption": "shade 8", "number": 8} == builders.text(store, 8).metadata
        ending = WRITERS[kind][1]
        assert found[0].key == store.key(8) == f"b.{ending}:1" and store.name(8) == f"{tmp_path}/b.{ending}:1"
        assert len(store) == 10 and not store.census.damage
        assert builders.text(store, 4).captions == ("shade 4",) and builders.record(store, 4).metadata["number"] == 4
    assert len(whole(kind, tmp_path / f"a.{ending}")) == 7  # one file is a set, too
    config = DatasetConfig(format=kind, path=str(tmp_path), evaluation_files=("b*",), exclude=("number=3",))
    train, held_out = (records.open_records(config, split) for split in records.SPLITS)
    assert [len(train), len(held_out)] == [6, 3] and store.fingerprint not in (train.fingerprint, held_out.fingerprint)
    halves = DatasetConfig(format=kind, path=str(tmp_path), holdout=0.5)
    parts = [records.open_records(halves, split) for split in records.SPLITS]
    assert sorted(keys(parts[0]) + keys(parts[1])) == sorted(keys(store)) and all(map(len, parts))


def test_a_selection_by_metadata_does_not_hold_a_whole_shard(kind, write, tmp_path, monkeypatch):
    write("a", builders.examples(range(7)))
    monkeypatch.setattr(selection, "_AT_ONCE", 3)
    read, seen = example_records.ExampleRecords._read, []

    def counted(self, number, index, rows, images):
        seen.append(list(rows))
        return read(self, number, index, rows, images)

    monkeypatch.setattr(example_records.ExampleRecords, "_read", counted)
    store = whole(kind, tmp_path, exclude=("number=2", "number=6"))
    assert [one.metadata["number"] for one in store.read(range(5))] == [0, 1, 3, 4, 5]
    assert seen[:3] == [[0, 1, 2], [3, 4, 5], [6]]


def test_features_of_every_kind(kind, write, tmp_path):
    write(
        "a",
        [
            builders.example(
                **{
                    "image/encoded": b"p",
                    "captions/text": ["one", " ", "two"],
                    "label": [3, 5],
                    "score": 0.5,
                    "junk": b"\xff",
                    "long": b"x" * 5_000,
                    "none": [],
                }
            ),
            builders.example(**{"image/encoded": b"q", "captions/text": b"\xff"}),
            builders.example(**{"captions/text": "no picture"}),
            builders.example(**{"image/encoded": [b"f1", b"f2"], "captions/text": "a film"}),
            b"no example",
            builders.example(**{"image/encoded": b"r", "captions/text": ""}),
        ],
    )
    found = whole(kind, tmp_path).read(range(6))
    assert (found[0].image, found[0].captions) == (b"p", ("one", "two"))
    assert found[0].metadata == {"captions/text": ["one", " ", "two"], "label": [3, 5], "score": 0.5, "none": []}
    assert [bad.cause for bad in found[1:]] == [
        "caption is not UTF-8",
        "record without image",
        "several images in one example",
        "damaged example",
        "empty caption",
    ]
    labelled = whole(kind, tmp_path, label_field="label", text_fields=("none",))
    assert builders.record(labelled, 0).captions == () and builders.record(labelled, 0).metadata["label"] == [3, 5]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"image_field": "photo"},
            r"a\.\w+ \(the first 1 records\) has no image under 'photo' \(there is .*caption.*\): name its field in image_field",
        ),
        ({"label_field": "class"}, "has no field 'class' .* change label_field"),
        ({"text_fields": ("caption", "captoin")}, "has no field 'captoin' .* change text_fields"),
        ({"train_files": ("q*",)}, "no .*record file below .* matches q"),
    ],
)
def test_what_is_wrong_with_the_features_is_said(kind, write, tmp_path, options, message):
    write("a", builders.examples([1]))
    with pytest.raises(CocaError, match=message):
        whole(kind, tmp_path, **options)
    write("a", [builders.example(image=b"x", words="y")])
    with pytest.raises(CocaError, match=r"has no caption under a usual name .* in text_fields"):
        whole(kind, tmp_path)
    assert builders.text(whole(kind, tmp_path, text_fields=("words",)), 0).captions == ("y",)


def test_a_file_that_disappears_mid_run_is_a_bad_record(kind, write, tmp_path):
    path = write("a", builders.examples(range(3)))
    write("b", builders.examples(range(3, 5)))
    store = whole(kind, tmp_path)
    path.unlink()
    found = store.read(range(5))
    assert [bad.cause for bad in found[:3]] == ["missing file"] * 3 and found[4].captions == ("shade 4",)
    assert store.read_texts([0])[0].cause == "missing file" and store.name(0).endswith(":0")


def test_files_of_another_format_are_named(kind, write, tmp_path):
    (tmp_path / f"a.{WRITERS[kind][1]}").write_bytes(b"<html>" * 3_000)
    with pytest.raises(CocaError, match=r"a\.\w+ cannot be read as an? \w+Record file"):
        whole(kind, tmp_path)


def test_the_index_beside_a_numbered_shard_is_no_shard(tmp_path):
    builders.write_tfrecord(tmp_path / "a.tfrecord-00000-of-00001", builders.examples(range(3)))
    for _ in range(2):
        assert len(whole("tfrecords", tmp_path)) == 3
    assert (tmp_path / "a.tfrecord-00000-of-00001.index").exists()


def test_a_tfrecord_file_with_a_broken_tail_keeps_what_stands_before_it(tmp_path):
    builders.write_tfrecord(tmp_path / "a.tfrecord", builders.examples(range(6)))
    complete = (tmp_path / "a.tfrecord").read_bytes()
    size = len(complete) // 6
    for cut, count in ((len(complete) - 1, 5), (3 * size + 5, 3), (2 * size + 40, 2)):
        (tmp_path / "a.tfrecord").write_bytes(complete[:cut])
        store = whole("tfrecords", tmp_path)
        assert len(store) == count and store.census.damage == {"broken TFRecord tail": 1}
        assert [record.captions[0] for record in store.read(range(count))] == [f"shade {i}" for i in range(count)]
    (tmp_path / "a.tfrecord").write_bytes(complete[: 2 * size + 60] + b"junk" + complete[2 * size + 64 :])
    (bad,) = whole("tfrecords", tmp_path).read([2])  # only lengths' checksums are checked: decoders do the rest
    if not isinstance(bad, BadRecord):
        with pytest.raises(BadRecord):
            images.decode(bad.image)
    (tmp_path / "a.tfrecord").write_bytes(complete[:8] + b"\0\0\0\0" + complete[12:])
    with pytest.raises(CocaError, match="compressed ones have no random access"):
        whole("tfrecords", tmp_path)


def test_a_damaged_array_record_file_gives_bad_records(tmp_path):
    path = tmp_path / "a.array_record"
    builders.write_array_record(path, builders.examples(range(200)))
    store = whole("array_records", tmp_path)
    complete = path.read_bytes()
    damaged = bytearray(complete)
    damaged[complete.index(b"shade 150")] ^= 1
    path.write_bytes(damaged)
    found = store.read([149, 150, 151])
    assert [one.captions for one in (found[0], found[2])] == [("shade 149",), ("shade 151",)]
    assert found[1].cause == "unreadable ArrayRecord file"
    path.write_bytes(complete[: len(complete) // 2])
    assert {bad.cause for bad in store.read([0, 150])} == {"unreadable ArrayRecord file"}


def test_tfrecords_in_any_bucket_and_array_records_in_some(tmp_path):
    builders.write_tfrecord(tmp_path / "a.tfrecord", builders.examples(range(4)))
    storage.write_atomically("memory://examples/a.tfrecord", (tmp_path / "a.tfrecord").read_bytes())
    found = whole("tfrecords", "memory://examples").read([3, 0])
    assert [record.captions for record in found] == [("shade 3",), ("shade 0",)]
    storage.write_atomically("memory://arrays/a.array_record", b"x")
    with pytest.raises(CocaError, match="those are read from disks and from gs:// only: mount"):
        whole("array_records", "memory://arrays")


class FakeStorage(http.server.BaseHTTPRequestHandler):
    """Google's cloud storage with one object; it is out of order for as many requests as it is told to."""

    data, refused, asked = b"", 0, []

    def do_GET(self):
        FakeStorage.asked.append(self.path)
        if FakeStorage.refused:
            FakeStorage.refused -= 1
            self.send_error(403)  # one that Google's client does not repeat by itself
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(self.data) - int(last))
        body = self.data[start : int(last) + 1 if first and last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(self.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_array_records_in_googles_buckets(tmp_path, monkeypatch):
    builders.write_array_record(tmp_path / "a", builders.examples(range(9)))
    monkeypatch.setattr(FakeStorage, "data", (tmp_path / "a").read_bytes())
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(remote, "_is_there", lambda path: True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeStorage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        file = storage.File("gs://bucket/a.array_record", "a.array_record", len(FakeStorage.data), "1")
        FakeStorage.refused = 2
        index = array_record.index(file)
        assert len(index) == 9 and array_record.payloads(file, index, [7, 2]) == builders.examples([7, 2])
        assert any("bucket/o/a.array_record" in path for path in FakeStorage.asked) and not FakeStorage.refused
        FakeStorage.refused = 99
        with pytest.raises(CocaError, match="cannot be read as an ArrayRecord file"):
            array_record.index(file)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    return builders.write_tfds(tmp_path_factory.mktemp("tfds"), request.param, train=range(120, 140), test=range(5))


def test_a_prepared_tfds_set(prepared, monkeypatch):
    store = whole("tfds", prepared)
    assert len(store) == 20 and store.class_names == ("dark", "light")

    def number(record):
        return record.metadata["label"] * 1_000 + int(record.captions[0].split()[1])

    found = {number(record): record for record in store.read(range(20))}
    assert sorted(found) == [*range(120, 128), *range(1_128, 1_140)]
    record = found[1_130]
    assert record.captions == ("shade 130", "grey 130") and record.metadata["captions/id"] == [130, -130]
    assert images.decode(record.image).getpixel((3, 3)) == (130, 130, 130)
    labelled = whole("tfds", prepared, label_field="label")
    assert (
        labelled.class_names == ("dark", "light")
        and builders.record(labelled, 0).captions == builders.record(store, 0).captions
    )
    config = DatasetConfig(
        format="tfds", path=str(prepared), train_files=("train[:50%]",), evaluation_files=("test", "train[90%:]")
    )
    train, held_out = (records.open_records(config, split) for split in records.SPLITS)
    assert [len(train), len(held_out)] == [10, 7] and keys(train) == keys(store)[:10]
    assert held_out.read([5, 6]) == store.read([18, 19])
    assert len({train.fingerprint, held_out.fingerprint, store.fingerprint}) == 3
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared.parent.parent))
    for name in ("shades:1.0.0", "shades", str(prepared.parent)):
        assert whole("tfds", name).fingerprint == store.fingerprint


def test_what_is_wrong_with_a_tfds_set_is_said(prepared, tmp_path):
    with pytest.raises(CocaError, match=r"has no split 'dev' \(there is train, test\)"):
        whole("tfds", prepared, train_files=("dev",))
    with pytest.raises(CocaError, match=r"there is no prepared TFDS dataset at .*none"):
        whole("tfds", tmp_path / "none")
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(CocaError, match="cannot be read as a TFDS dataset"):
        whole("tfds", tmp_path)


def test_the_last_version_below_a_remote_folder_is_taken(monkeypatch):
    for version in ("1.9.0", "1.10.0"):
        storage.write_atomically(f"memory://sets/birds/{version}/dataset_info.json", b"{}")
        storage.write_atomically(f"memory://sets/birds/{version}/birds-train.tfrecord-00000-of-00001", b"")
    for path in ("memory://sets/birds/1.10.0", "memory://sets/birds", "memory://sets/"):
        assert tfds_records._folder(path) == "memory://sets/birds/1.10.0"
    storage.write_atomically("memory://empty/other.json", b"{}")
    with pytest.raises(CocaError, match="there is no prepared TFDS dataset at memory://empty"):
        whole("tfds", "memory://empty")


def test_no_file_is_kept_open(tmp_path):
    builders.write_array_record(tmp_path / "a.array_record", builders.examples(range(3)))
    store = whole("array_records", tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        store.read([0, 2])
    assert not before or len(os.listdir("/proc/self/fd")) <= before


def test_counts_of_a_large_set_belong_to_its_split(prepared, monkeypatch):
    splits = ("train", "train[:5]", "train[5:]")
    monkeypatch.setattr(sharded, "_MANY", 1)
    assert [len(whole("tfds", prepared, train_files=(split,))) for split in splits] == [20, 5, 15]
