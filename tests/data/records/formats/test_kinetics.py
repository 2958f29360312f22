"""Kinetics' lists, of whose clips a disk has some."""

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.errors import CocaError
from coca_jax.presets import datasets as presets
from tests.data import builders

HEADER = "label,youtube_id,time_start,time_end,split"
CLIPS = (  # label, id, start, end
    ("abseiling", "0347ZoDXyP0", 95, 105),
    ("playing guitar", "-_abc_12345", 0, 10),
    ("air drumming", "gone0000000", 7, 17),
    ("abseiling", "zzzzzzzzzzz", 1000, 1010),
)


def file_name(clip, suffix="mp4"):
    return f"{clip[1]}_{clip[2]:06d}_{clip[3]:06d}.{suffix}"


def write(folder, place=lambda clip: file_name(clip), clips=CLIPS, list_name="train.csv"):
    """A list of four clips, of which the third is not on the disk."""
    for clip in clips:
        if not clip[1].startswith("gone"):
            path = folder / place(clip)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip[1].encode())
    path = folder / list_name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([HEADER, *(f"{label},{name},{start},{end},train" for label, name, start, end in clips)]))
    return path


def opened(path, split="train", **options):
    values = {**presets.data("kinetics")["dataset"], "path": str(path), "holdout": 0.0, **options}
    return records.open_records(DatasetConfig(**values), split)


PLACES = {
    "one folder": file_name,
    "folder of the split": lambda clip: f"train/{file_name(clip)}",
    "class folders": lambda clip: f"train/{clip[0]}/{file_name(clip)}",
    "class folders with _": lambda clip: f"videos/{clip[0].replace(' ', '_')}/{file_name(clip)}",
    "another suffix": lambda clip: f"train/{file_name(clip, 'mkv')}",
}


@pytest.mark.parametrize("list_name", ["train.csv", "annotations/train.csv"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_clips_are_found_and_those_that_are_not_there_are_left_out(tmp_path, place, list_name):
    path = write(tmp_path, place, list_name=list_name)
    store = opened(path)
    assert len(store) == store.census.total == 3
    assert store.census.damage == {"clip not on the disk": 1}
    assert store.census.names == {"clip not on the disk": file_name(CLIPS[2])}
    found = store.read(range(3))
    there = [clip for clip in CLIPS if clip[1] != "gone0000000"]
    assert [(one.metadata["label"], one.image.decode(), one.key) for one in found] == [
        (clip[0], clip[1], file_name(clip)) for clip in there
    ]
    assert store.name(1) == f"{tmp_path}/{place(CLIPS[1])}"
    summary = records.summary(DatasetConfig(**{**presets.data("kinetics")["dataset"], "holdout": 0.0}), store)
    assert summary == f"3 records train, 0 held out, 1 left out (clip not on the disk: 1, e.g. {file_name(CLIPS[2])})"


def test_the_split_does_not_depend_on_the_folders_and_the_fingerprint_does_on_the_clips(tmp_path):
    clips = [("a b", f"id{i:09d}", i, i + 10) for i in range(60)]
    stores = []
    for name, place in (("x", file_name), ("y", PLACES["class folders"])):
        (tmp_path / name).mkdir()
        stores.append(opened(write(tmp_path / name, place, clips), "evaluation", holdout=0.3))
    assert [stores[0].key(i) for i in range(len(stores[0]))] == [stores[1].key(i) for i in range(len(stores[1]))]
    assert len(stores[0]) == stores[0].census.held_out > 0 and stores[0].fingerprint == stores[1].fingerprint
    before = opened(tmp_path / "x/train.csv").fingerprint
    (tmp_path / "x" / file_name(clips[30])).unlink()
    after = opened(tmp_path / "x/train.csv")
    assert after.fingerprint != before and len(after) == 59


def test_of_several_copies_the_first_in_order_is_taken(tmp_path):
    path = write(tmp_path, lambda clip: f"b/{file_name(clip)}")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / file_name(CLIPS[0])).write_bytes(b"first")
    (tmp_path / "a" / file_name(CLIPS[0], "jpg")).write_bytes(b"no clip")
    assert builders.record(opened(path), 0).image == b"first"


def test_without_any_clip_the_list_is_refused(tmp_path):
    path = write(tmp_path, clips=CLIPS[2:3])
    with pytest.raises(
        CocaError, match=r"none of the 1 clips of .*train\.csv, such as gone0000000_000007_000017\.mp4, lies below"
    ):
        opened(path)


def test_times_that_are_no_numbers_are_named(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace(",95,", ",soon,"))
    with pytest.raises(
        CocaError, match=r"line 2 of .*train\.csv has no image under a usual name \(there is label, youtube_id"
    ):
        opened(path)
    path.write_text(path.read_text().replace(",soon,", ",95.0,"))
    assert len(opened(path)) == 3


def test_files_that_a_table_or_the_config_names_are_taken_as_they_are(tmp_path):
    """Missing ones are bad records then, as in any manifest."""
    path = write(tmp_path, lambda clip: f"clips/{clip[1]}.mp4")
    store = opened(path, image_field="clips/{youtube_id}.mp4")
    assert [one.cause for one in store.read([2])] == ["missing file"] and len(store) == 4 and not store.census.damage
    path.write_text(f"file_name,{HEADER}\nclips/{CLIPS[0][1]}.mp4,abseiling,x,1,2,train\n")
    assert opened(path).key(0) == f"clips/{CLIPS[0][1]}.mp4"
