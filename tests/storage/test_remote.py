"""Bytes from disks and buckets, and networks that fail."""

import logging
import os
import pathlib
import subprocess
import sys
import threading

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.errors import CocaError, DataError
from coca_jax.storage import files as storage
from coca_jax.storage import remote
from coca_jax.storage.files import ReadError
from tests.data import builders


class Flaky(MemoryFileSystem):
    """A bucket whose reads fail as often as they are told to, hang, and are counted."""

    protocol = "flaky"
    store, pseudo_dirs = {}, [""]
    failures, reads, hangs = 0, [], None
    clock, down = None, ()  # from and to which second of a fake clock nothing is answered, but from a kept listing
    listed = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("flaky://", "memory://"))

    def invalidate_cache(self, path=None):
        Flaky.listed = False

    def info(self, path, **kwargs):
        if not Flaky.listed:
            self.check()
        return super().info(path, **kwargs)

    def check(self):
        if Flaky.down and Flaky.down[0] <= Flaky.clock.now < Flaky.down[1]:
            raise RuntimeError("no route to host")

    def cat_file(self, path, start=None, end=None, **kwargs):
        Flaky.reads.append((start, end))
        self.check()
        if Flaky.hangs is not None:
            Flaky.hangs.wait(30)
        if Flaky.failures:
            Flaky.failures -= 1
            raise RuntimeError("the network is having a bad day")  # drivers have errors of their own
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def bucket(monkeypatch):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.reads.clear()
    Flaky.failures, Flaky.hangs, Flaky.clock, Flaky.down, Flaky.listed = 0, None, None, (), False
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.001, 0.0))
    monkeypatch.setattr(remote, "_buckets", {})
    yield "flaky://bucket/set"
    if Flaky.hangs is not None:
        Flaky.hangs.set()


class Clock:
    """Time that passes where one sleeps, and nowhere else."""

    def __init__(self, monkeypatch):
        self.now = 1_000.0
        monkeypatch.setattr(remote, "WAITS", (0.5, 2.0, 8.0))
        monkeypatch.setattr(remote, "_clock", lambda: self.now)
        monkeypatch.setattr(remote, "_sleep", self.sleep)
        Flaky.clock = self

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(bucket, monkeypatch):
    return Clock(monkeypatch)


def put(address: str, data: bytes) -> None:
    storage.write_atomically(address, data)


def test_a_bucket_and_a_disk_read_alike(tmp_path, bucket):
    for place in (bucket, str(tmp_path)):
        put(f"{place}/b/two.bin", bytes(range(100)))
        put(f"{place}/one.bin", b"1")
        found = storage.list_files(place)
        assert [(file.name, file.size) for file in found] == [("b/two.bin", 100), ("one.bin", 1)]
        assert storage.read(found[0].path) == bytes(range(100)) and found[0].path == f"{place}/b/two.bin"
        assert storage.read_range(found[0].path, 90, 20) == bytes(range(90, 100))
        seen = storage.stat(found[0].path)
        assert (seen.size, seen.version) == (100, found[0].version) and seen.version
        assert storage.stat(f"{place}/b") is None and storage.stat(f"{place}/none") is None
        with storage.open_file(found[0]) as file:
            file.seek(10)
            assert file.read(5) == bytes(range(10, 15)) and file.seek(-2, 2) == 98 and file.read() == b"bc"
        each = storage.read_each([found[1].path, f"{place}/none"])
        assert each[0] == b"1" and each[1].cause == "missing file"
        with pytest.raises(ReadError, match="file too large"):
            storage.read(found[0].path, largest=99)


def test_a_read_that_fails_twice_and_then_works_is_logged_and_otherwise_invisible(bucket, caplog):
    put(f"{bucket}/a", b"abc")
    Flaky.failures = 2
    with caplog.at_level(logging.WARNING, logger="coca_jax.storage.remote"):
        assert storage.read_range(f"{bucket}/a", 1, 2) == b"bc"
    assert len(Flaky.reads) == 3 and Flaky.failures == 0
    assert [record.getMessage().count("bad day") for record in caplog.records] == [1, 1]
    assert "attempt 2" in caplog.text and "flaky://bucket/set/a" in caplog.text


def test_a_read_that_never_works_is_given_up(bucket):
    put(f"{bucket}/a", b"abc")
    Flaky.failures = 99
    with pytest.raises(ReadError, match="unreadable tar"):
        storage.read_range(f"{bucket}/a", 0, 1, "unreadable tar")
    assert len(Flaky.reads) == 4
    with pytest.raises(ReadError, match="missing file"):  # asked once: it will not come back
        Flaky.failures = 0
        storage.read_range(f"{bucket}/b", 0, 1)
    assert len(Flaky.reads) == 5


def test_a_read_that_hangs_is_given_up(bucket, monkeypatch):
    put(f"{bucket}/a", b"abc")
    monkeypatch.setattr(remote, "TIMEOUT", 0.02)
    Flaky.hangs = threading.Event()
    with pytest.raises(ReadError, match="unreadable file") as caught:
        storage.read(f"{bucket}/a")
    assert "no answer in 0.02 s" in str(caught.value.__cause__) and len(Flaky.reads) == 4


def test_an_outage_of_minutes_loses_no_record(bucket, clock, caplog):
    put(f"{bucket}/a", b"abc")
    Flaky.down, Flaky.listed = (1_000, 1_250), True
    with caplog.at_level(logging.WARNING, logger="coca_jax.storage.remote"):
        assert storage.read_each([f"{bucket}/a"] * 2) == [b"abc"] * 2
    assert 1_250 <= clock.now < 1_300
    told = [record.getMessage() for record in caplog.records if "waiting for it" in record.getMessage()]
    assert 5 <= len(told) <= 12 and told[0].startswith("flaky://bucket has not been readable for ")
    Flaky.down = (clock.now, clock.now + 250)  # another begins to count anew
    assert storage.read(f"{bucket}/a") == b"abc"


@pytest.mark.parametrize(
    "ask",
    [
        storage.read,
        storage.stat,
        lambda path: storage.read_spans(path, [(0, 1), (1, 1)]),
        storage.list_files,
        lambda path: storage.open_file(storage.File(path, "a", 3, "")).read(),
    ],
)
def test_a_bucket_that_stays_silent_ends_the_run_within_a_known_time(bucket, clock, ask, monkeypatch):
    put(f"{bucket}/a", b"abc")
    monkeypatch.setattr(Flaky, "find", lambda self, *_, **__: self.check())
    Flaky.down = (1_000, 10**9)
    with pytest.raises(
        DataError,
        match=r"^nothing of flaky://bucket could be read for 30. s .*/a: no route to host.*: when the network",
    ) as caught:
        ask(f"{bucket}/a")
    assert 1_000 + remote.OUTAGE < clock.now < 1_000 + remote.OUTAGE + 10 and "\n" not in str(caught.value)


def test_a_program_that_ends_does_not_wait_for_a_bucket():
    """Such as a run that was asked to stop, and has saved its state."""
    program = """
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from coca_jax.storage import remote
remote.WAITS, remote.OUTAGE, tried = (0.01,), 1_000.0, Event()
remote.persistently("memory://bucket/a", int)
def fail():
    tried.set()
    raise RuntimeError("no route to host")
remote._is_there = lambda path: False
waiting = ThreadPoolExecutor(1).submit(remote.persistently, "memory://bucket/a", fail)
waiting.add_done_callback(lambda done: print(repr(done.exception()), flush=True))
tried.wait()
"""
    root = pathlib.Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=300)
    assert ended.stdout.startswith("DataError('memory://bucket/a could not be read (no route to host) when the program")


def test_a_bucket_that_never_answered_is_not_waited_for(bucket, clock):
    Flaky.down = (1_000, 10**9)
    with pytest.raises(ReadError, match="unreadable file"):
        storage.read(f"{bucket}/a")
    assert clock.now == 1_010.5


def test_reads_and_questions_that_hang_end_the_run_too(bucket, clock, monkeypatch):
    put(f"{bucket}/a", b"abc")

    def hang(work):
        clock.sleep(remote.TIMEOUT)
        if clock.now > 10_000:
            pytest.fail("it is waited for without end")
        raise TimeoutError("no answer")

    monkeypatch.setattr(remote, "_in_time", hang)
    with pytest.raises(DataError, match=r"nothing of flaky://bucket could be read for 37. s"):
        storage.read(f"{bucket}/a")
    assert clock.now < 1_000 + 8 * 60


def test_a_file_of_which_nothing_is_said_is_given_up_where_the_bucket_answers_others(bucket, clock, monkeypatch):
    for name in "ab":
        put(f"{bucket}/{name}", b"abc")

    def others(seconds):
        clock.sleep(seconds)
        if clock.now > 10_000:
            pytest.fail("it is waited for without end")
        Flaky.failures = 0
        assert storage.read(f"{bucket}/b") == b"abc"
        Flaky.failures = 1

    monkeypatch.setattr(remote, "_sleep", others)
    monkeypatch.setattr(remote, "_is_there", lambda path: False)  # such as a prefix that these credentials may not read
    Flaky.failures = 1
    with pytest.raises(ReadError, match="unreadable file"):
        storage.read(f"{bucket}/a")
    assert 0 < clock.now - 1_000 - remote.OUTAGE < 10


def test_files_that_fail_alone_end_a_run_only_if_nothing_else_is_read(bucket, clock):
    for name in "ab":
        put(f"{bucket}/{name}", b"abc")
    bad = {"a"}

    def reads(count, name="a"):
        Flaky.failures = 4 * count if name in bad else 0
        return [storage.read_each([f"{bucket}/{name}"])[0] for _ in range(count)]

    for _ in range(4):  # each failure is 10.5 s, and all of them more than the limit
        assert {found.cause for found in reads(9)} == {"unreadable file"} and reads(1, "b") == [b"abc"]
    reads(1)
    clock.sleep(2 * remote.OUTAGE)  # nobody asks: that is no failure
    assert reads(1)[0].cause == "unreadable file"
    with pytest.raises(DataError, match="nothing of flaky://bucket could be read"):
        reads(40)


def test_a_store_passes_on_that_its_bucket_is_lost(bucket, clock, tmp_path, monkeypatch):
    for name in ("a.tar", "b.tar"):
        builders.write_tar(tmp_path / name, builders.members(range(3)))
        put(f"{bucket}/{name}", (tmp_path / name).read_bytes())
    monkeypatch.setenv("COCA_CACHE", "flaky://bucket/cache")
    config = DatasetConfig(format="tars", path=bucket, holdout=0.0)
    store = records.open_records(config, "train")
    assert len(store.read(range(6))) == 6
    Flaky.down, waits = (1_000, 10**9), []
    for ask in (
        lambda: store.read([5]),
        lambda: builders.text(store, 0).captions,
        lambda: builders.text(store, 4).metadata,
    ):
        store._shards.clear()  # so that indices are read again
        start = clock.now
        with pytest.raises(DataError, match="nothing of flaky://bucket"):
            ask()
        waits.append(clock.now - start)
    assert waits == [306.5] + [10.5] * 2  # nothing is asked again once that is known


@pytest.mark.parametrize("in_bucket", [False, True])
def test_spans_that_lie_close_together_are_read_at_once(tmp_path, bucket, in_bucket, monkeypatch):
    path = f"{bucket}/a" if in_bucket else str(tmp_path / "a")
    data = os.urandom(5_000)
    put(path, data)
    monkeypatch.setattr(storage, "_GAP", 100)
    monkeypatch.setattr(storage, "_REMOTE_GAP", 100)
    monkeypatch.setattr(storage, "_RUN", 1_000)
    reads, read_range = [], storage.read_range

    def counted(path, offset, size, cause):
        reads.append((offset, size))
        return read_range(path, offset, size, cause)

    monkeypatch.setattr(storage, "read_range", counted)
    spans = [
        (300, 50),
        (0, 100),
        (480, 10),
        (150, 100),
        (0, 10),
        (1_200, 900),
        (2_100, 900),
        (4_990, 20),
        (3_500, 0),
        (0, 2**40),
    ]
    found = storage.read_spans(path, spans, "torn")
    assert [one for one in found[:7]] == [data[offset : offset + size] for offset, size in spans[:7]]
    assert found[8] == b"" and [one.cause for one in (found[7], found[9])] == ["torn", "member too large"]
    assert sorted(reads) == [(0, 350), (480, 10), (1_200, 900), (2_100, 900), (3_500, 0), (4_990, 20)]
    assert [one.cause for one in storage.read_spans(path + "x", spans[:2])] == ["missing file"] * 2


def test_what_cannot_be_read_spoils_nothing_that_is_read_with_it(tmp_path, monkeypatch):
    put(str(tmp_path / "a"), bytes(range(100)))
    pread = os.pread

    def bad_sector(descriptor, size, offset):
        if offset <= 50 < offset + size:
            raise OSError("input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", bad_sector)
    found = storage.read_spans(str(tmp_path / "a"), [(60, 2), (49, 3), (0, 2)], "unreadable tar")
    assert (found[0], found[2]) == (b"<=", b"\0\1") and found[1].cause == "unreadable tar"


def test_what_is_wrong_with_an_address_is_said(tmp_path, bucket, monkeypatch):
    with pytest.raises(CocaError, match="there is nothing below flaky://bucket/set: "):
        storage.list_files(bucket)
    with pytest.raises(CocaError, match="nowhere does not exist"):
        storage.list_files(str(tmp_path / "nowhere"))
    with pytest.raises(CocaError, match=r"cannot be opened .*write gs://, s3:// or a folder"):
        storage.list_files("nonsense://x")

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(CocaError, match="needs a driver for s3:// that is not installed: pip install s3fs"):
        storage.list_files("s3://bucket")


def test_a_folder_that_cannot_be_listed_is_named(bucket, monkeypatch):
    def refused(*_, **__):
        raise PermissionError("no credentials")

    monkeypatch.setattr(Flaky, "find", refused)
    with pytest.raises(CocaError, match=r"set cannot be listed \(no credentials\): check the address"):
        storage.list_files(bucket)


def test_a_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = str(tmp_path / "deep" / "file")
    storage.write_atomically(path, b"old")

    def broken(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", broken)
        storage.write_atomically(path, b"new")
    assert storage.read(path) == b"old" and os.listdir(tmp_path / "deep") == ["file"]
    (tmp_path / "deep").chmod(0o555)
    assert not storage.is_writable(str(tmp_path / "deep")) and storage.is_writable(str(tmp_path))
    (tmp_path / "deep").chmod(0o755)
