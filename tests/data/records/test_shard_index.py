"""Indices of shards: kept, checked, made anew."""

import logging
import os

import numpy as np
import pytest

from coca_jax.data.records import shard_index
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

TEXTS = ["a", "", "ähm", "b" * 300, "a", "x/y.z", "aa", "\udcff"]


@pytest.fixture
def shard(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"x" * 100)
    return str(folder / "a.tar")


class Scan:
    def __init__(self, spans=((0, 10), (20, 80))):
        self.calls, self.spans = 0, np.array(spans, np.int64)

    def __call__(self, file):
        self.calls += 1
        return Index(self.spans, Strings.of(["k", "ü"]), damage={"torn": 1}, digest="d")


def test_strings_are_kept_in_arrays():
    strings = Strings.of(TEXTS)
    assert [strings[i] for i in range(len(strings))] == TEXTS


def test_hashes_depend_on_the_text_alone_and_are_spread_evenly(monkeypatch):
    hashes = Strings.of(TEXTS).hashes()
    assert hashes.dtype == np.uint64 and len(set(hashes.tolist())) == 7 and hashes[0] == hashes[4]
    assert Strings.of(TEXTS[3:]).hashes().tolist() == hashes[3:].tolist()
    assert int(hashes[0]) == 7319558703878668192 and int(hashes[3]) == 6078157523537403837  # held-out sets hang on it
    monkeypatch.setattr(shard_index, "_CHUNK", 3)
    assert Strings.of(TEXTS).hashes().tolist() == hashes.tolist()
    many = Strings.of(f"{i:09d}" for i in range(20_000)).hashes()
    assert len(np.unique(many)) == 20_000
    counts = np.histogram(many.astype(np.float64), bins=20, range=(0, 2.0**64))[0]
    assert counts.min() > 880 and counts.max() < 1_120  # 4 standard deviations
    assert not len(Strings.of([]).hashes())


def test_an_index_is_made_once_and_kept_beside_the_shard(shard, cache_folder):
    scan = Scan()
    for _ in range(2):
        index = shard_index.index_of(storage.stat(shard), "", scan)
        assert index.spans.tolist() == [[0, 10], [20, 80]] and [index.keys[0], index.keys[1]] == ["k", "ü"]
        assert (dict(index.damage), index.digest, len(index)) == ({"torn": 1}, "d", 2)
    assert scan.calls == 1 and sorted(os.listdir(os.path.dirname(shard))) == ["a.tar", "a.tar.index"]
    assert not os.listdir(cache_folder)
    shard_index.index_of(storage.stat(shard), "jpg", scan)
    assert scan.calls == 2 and os.path.exists(f"{shard}.jpg.index")


def test_where_the_folder_is_read_only_the_cache_folder_keeps_it(shard, cache_folder):
    os.chmod(os.path.dirname(shard), 0o555)
    scan = Scan()
    try:
        for _ in range(2):
            shard_index.index_of(storage.stat(shard), "", scan)
        assert scan.calls == 1 and os.listdir(os.path.dirname(shard)) == ["a.tar"]
        assert len(os.listdir(cache_folder / "indices")) == 1
    finally:
        os.chmod(os.path.dirname(shard), 0o755)


def test_where_nothing_can_be_kept_the_index_serves_all_the_same(shard, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(storage, "write_atomically", full)
    assert len(shard_index.index_of(storage.stat(shard), "", Scan())) == 2


def test_a_shard_that_changed_is_indexed_anew(shard):
    scan = Scan()
    shard_index.index_of(storage.stat(shard), "", scan)
    os.utime(shard, ns=(5, 5))  # the same size
    shard_index.index_of(storage.stat(shard), "", scan)
    assert scan.calls == 2
    with open(shard, "ab") as file:
        file.write(b"more")
    os.utime(shard, ns=(5, 5))  # the same time
    listed = storage.stat(shard)
    shard_index.index_of(listed, "", scan)
    assert scan.calls == 3
    with open(shard, "ab") as file:
        file.write(b"still more")
    os.unlink(f"{shard}.index")
    with pytest.raises(CocaError, match=r"a\.tar was changed or removed after it was listed"):
        shard_index.index_of(listed, "", scan)


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "noise", "pickle", "alien", "spans", "columns", "types", "keys", "json"]
)
def test_a_damaged_index_is_noticed_and_made_anew(shard, damage, caplog):
    file, kept = storage.stat(shard), f"{shard}.index"
    scan = Scan({"spans": [[0, 10], [20, 81]]}.get(damage, [[0, 10], [20, 80]]))
    shard_index.index_of(file, "", scan)
    whole = storage.read(kept)
    with np.load(kept) as arrays:
        arrays = dict(arrays)
    if damage == "pickle":
        arrays["spans"] = np.array([print, print], object)
    elif damage == "alien":
        arrays = {"weights": np.ones(3)}
    elif damage == "columns":
        arrays["spans"] = np.tile(arrays["spans"], 2)
    elif damage == "types":
        arrays["spans"] = arrays["spans"].astype(np.float32)
    elif damage == "keys":
        arrays["key_ends"] = arrays["key_ends"] + 7
    elif damage == "json":
        arrays["about"] = np.frombuffer(b"[" * 100_000, np.uint8)
    with open(kept, "wb") as changed:
        np.savez(changed, **arrays)
    bytes_of = {"truncated": whole[: len(whole) // 2], "empty": b"", "noise": b"\x93NUMPY" + os.urandom(200)}
    if damage in bytes_of:
        storage.write_atomically(kept, bytes_of[damage])
    with caplog.at_level(logging.WARNING, logger="coca_jax.data.records.shard_index"):
        index = shard_index.index_of(file, "", Scan())
    assert index.spans.tolist() == [[0, 10], [20, 80]] and f"{kept} " in caplog.text
    again = Scan()
    shard_index.index_of(file, "", again)
    assert not again.calls  # the new one has taken its place


def test_in_a_bucket_it_is_kept_in_the_cache_folder_and_beside_the_shard_on_demand(cache_folder):
    storage.write_atomically("memory://indices/a.tar", b"x" * 100)
    file, scan = storage.stat("memory://indices/a.tar"), Scan()
    shard_index.index_of(file, "", scan)
    assert storage.stat("memory://indices/a.tar.index") is None and len(os.listdir(cache_folder / "indices")) == 1
    (kept,) = (cache_folder / "indices").iterdir()
    kept.unlink()
    shard_index.index_of(file, "", scan, beside=True)
    assert storage.stat("memory://indices/a.tar.index") and not kept.exists()
    shard_index.index_of(file, "", scan)
    assert scan.calls == 2 and kept.exists()  # copied, so that it is not fetched again
