"""Stores of pictures in files of their own, with texts beside them or a manifest."""

import dataclasses
import json
import os

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.images.decode import decode
from coca_jax.data.records import open as records
from coca_jax.data.records.formats import manifest
from coca_jax.data.records.record import BadRecord
from coca_jax.embedding_index import folder as embedding_index_folder
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from tests.data import builders


def folder(path, **options):
    return DatasetConfig(format="folder", path=str(path), **options)


def everything(path, **options):
    return records.open_records(folder(path, holdout=1e-9, **options), "train")


def keys(store):
    return [store.key(i) for i in range(len(store))]


def test_a_folder_with_a_text_beside_each_picture(tmp_path):
    builders.write_folder(tmp_path, range(30))
    (tmp_path / "lonely.png").write_bytes(b"x")
    train = records.open_records(folder(tmp_path, holdout=0.3), "train")
    held_out = records.open_records(folder(tmp_path, holdout=0.3), "evaluation")
    assert len(train) + len(held_out) == 30 and train.census.damage == {"image without text": 1}
    for i in range(len(train)):
        assert (
            builders.record(train, i).captions == (f"shade {int(train.key(i)[1:4])}",)
            and builders.record(train, i).image[:2] == b"\xff\xd8"
        )
    (tmp_path / train.key(0)).unlink()
    with pytest.raises(BadRecord, match="missing file"):
        builders.record(train, 0)


@pytest.mark.parametrize(
    "name, text",
    [
        (
            "captions.jsonl",
            '{"file_name": "p001.jpg", "captions": ["one", "uno"], "n": 1}\n\n'
            '{"file_name": "p002.jpg", "caption": "two"}\n{"file_name": "deep.jpg", "text": "down"}\n',
        ),
        ("captions.csv", "file_name,caption,n\np001.jpg,one,1\np002.jpg,two,2\ndeep.jpg,down,3\np001.jpg,uno,1\n"),
    ],
)
def test_a_folder_with_one_captions_file(tmp_path, name, text):
    builders.write_folder(tmp_path, [1, 2, 3])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "deep.jpg").write_bytes(builders.picture(9, "JPEG"))
    (tmp_path / name).write_text(text)
    store = records.open_records(folder(tmp_path, holdout=1e-9), "train")
    assert {store.key(i): builders.record(store, i).captions for i in range(len(store))} == {
        "p001.jpg": ("one", "uno"),
        "p002.jpg": ("two",),
        "deep.jpg": ("down",),
    }
    assert str(builders.text(store, keys(store).index("p001.jpg")).metadata["n"]) == "1"


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("captions.jsonl", '{"file_name": "a.jpg", "caption": "x"}\nnot json', r"line 2 of .* is not a row"),
        (
            "captions.jsonl",
            '{"caption": "x"}',
            r"line 1 of .* has no image under a usual name.* \(there is caption\)",
        ),
        ("captions.jsonl", '{"file_name": "../../etc/passwd", "caption": "x"}', "must lie below"),
        ("captions.jsonl", '{"file_name": "/etc/passwd", "caption": "x"}', "must lie below"),
        ("captions.jsonl", "", "have no captions: put a text file .* or add captions.jsonl"),
        (
            "captions.csv",
            "picture,caption\na.jpg,x",
            r"has no image under a usual name.* \(there is picture, caption\)",
        ),
        ("captions.csv", "file_name,caption\n..\\a.jpg,x", "must lie below"),
        ("a.jpg", "", "have no captions: put a text file .* or add captions.jsonl"),
        ("a.md", "", "there is no image below"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CocaError, match=message) as caught:
        records.open_records(folder(tmp_path), "train")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_under_another_name_is_suggested_where_a_field_is_missing(tmp_path):
    builders.write_folder(tmp_path, range(3))
    with pytest.raises(CocaError, match=r"has no field 'kind' .*: change label_field$"):
        records.open_records(folder(tmp_path, label_field="kind"), "train")
    (tmp_path / "labels.CSV").write_text("file_name,kind\np000.jpg,red\np001.jpg,blue\n")
    with pytest.raises(CocaError, match=r"or set the dataset's path to a table in it \(there is labels.CSV\)$"):
        records.open_records(folder(tmp_path, label_field="kind"), "train")
    assert len(records.open_records(folder(tmp_path / "labels.CSV", label_field="kind", holdout=1e-9), "train")) == 2


def test_the_holdout_divides_a_folder(tmp_path):
    builders.write_folder(tmp_path, range(60))
    stores = [records.open_records(folder(tmp_path, holdout=0.3), split) for split in records.SPLITS]
    assert sorted(keys(stores[0]) + keys(stores[1])) == [f"p{i:03d}.jpg" for i in range(60)]
    assert 8 <= len(stores[1]) <= 30
    named = folder(tmp_path, evaluation_files=("p00*",), exclude=("stem=p011",))
    train, held_out = (records.open_records(named, split) for split in records.SPLITS)
    assert len(held_out) == 10 and len(train) == 49 and "p011.jpg" not in keys(train)
    assert train.read([0, 3]) == [builders.record(train, 0), builders.record(train, 3)]
    with pytest.raises(CocaError, match=r"none of the 60 records of .* is left for evaluation"):
        records.open_records(folder(tmp_path, evaluation_files=("q*",)), "evaluation")


def test_without_captions_the_name_of_file_or_folder_is_the_label(tmp_path):
    for name in ("cat/1.png", "cat/2.gif", "dog/1.mkv", "dog/LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    store = everything(tmp_path, label_field="folder")
    assert [(r.key, r.captions, dict(r.metadata)) for r in store.read(range(3))] == [
        ("cat/1.png", (), {"stem": "1", "folder": "cat"}),
        ("cat/2.gif", (), {"stem": "2", "folder": "cat"}),
        ("dog/1.mkv", (), {"stem": "1", "folder": "dog"}),
    ]
    assert not store.census.damage
    with pytest.raises(CocaError, match="have no captions"):
        everything(tmp_path)


def test_a_manifest_is_found_from_its_own_folder(tmp_path, monkeypatch):
    builders.write_folder(tmp_path, [1])
    (tmp_path / "list.csv").write_text("path,text,set\np001.jpg,one,a\np002.jpg,two,b\n")
    monkeypatch.chdir(tmp_path)
    store = everything("list.csv", exclude=("set=b",))
    assert keys(store) == ["p001.jpg"] and builders.record(store, 0).captions == ("one",)
    assert (
        builders.text(store, 0).metadata["folder"]
        == tmp_path.name
        == builders.text(everything("."), 0).metadata["folder"]
    )


ROWS = [["what?", "cat", 1], ["where?", "hier, \u00fcberall", 2], ["who?", "dog", 1]]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_json_list_of_lists_is_a_manifest(tmp_path, indent, ascii_only):
    (tmp_path / "images").mkdir()
    for i in (1, 2):
        (tmp_path / "images" / f"{i}.png").write_bytes(builders.picture(i))
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only), "utf-8")
    store = everything(path, image_field="images/{2}.png", text_fields=("{0} {1}",))
    assert {r.key: (r.captions, r.image) for r in store.read(range(2))} == {
        "images/1.png": (("what? cat", "who? dog"), builders.picture(1)),
        "images/2.png": (("where? hier, \u00fcberall",), builders.picture(2)),
    }
    assert (
        builders.text(store, 0).metadata["rows"][1] == {"0": "who?", "1": "dog", "2": 1}
        and builders.text(store, 1).metadata["1"] == ROWS[1][1]
    )
    assert store.name(0) == f"{tmp_path}/images/1.png"
    labels = everything(path, image_field="{2}.png", label_field="1")
    assert builders.text(labels, 0).metadata["1"] == ["cat", "dog"] and builders.record(
        labels, 0
    ).image == builders.picture(1)
    with pytest.raises(CocaError, match=r"row 1 of .*questions\.json is a list: set image_field"):
        everything(path)


def test_rows_are_found_whatever_lies_between_them(tmp_path):
    builders.write_folder(tmp_path, [1, 2])
    quoted = '\ufefffile_name,caption\r\np001.jpg,"two\r\nlines, ""quoted"""\r\n\r\np002.jpg,\u00e4\r\n'
    (tmp_path / "captions.csv").write_bytes(quoted.encode())
    store = everything(tmp_path)
    assert [builders.text(store, i).captions for i in range(2)] == [('two lines, "quoted"',), ("\u00e4",)]
    (tmp_path / "captions.jsonl").write_bytes(
        '\ufeff{"file_name": "p002.jpg", "caption": "line\u2028separator"}\r\n\n'
        '{"file_name": "p001.jpg", "text": "x"}'.encode()
    )
    store = everything(tmp_path)
    assert keys(store) == ["p002.jpg", "p001.jpg"] and builders.text(store, 0).captions == ("line separator",)


@pytest.mark.parametrize(
    "name, text",
    [
        (
            "captions.jsonl",
            b'{"file_name": "p001.jpg", "caption": "\xff"}\n{"file_name": "p002.jpg", "caption": "two"}\n',
        ),
        ("captions.csv", b"file_name,caption\np001.jpg,\xff\np002.jpg,two\n"),
        (
            "captions.json",
            b'[{"file_name": "p001.jpg", "caption": "\xff"}, {"file_name": "p002.jpg", "caption": "two"}]',
        ),
    ],
)
def test_a_caption_that_is_not_utf_8_spoils_its_own_record_alone(tmp_path, name, text):
    builders.write_folder(tmp_path, [1, 2])
    (tmp_path / name).write_bytes(text)
    bad, good = everything(tmp_path).read([0, 1])
    assert bad.cause == "caption is not UTF-8" and good.captions == ("two",)


def test_a_manifest_that_changes_mid_run_gives_bad_records(tmp_path):
    builders.write_folder(tmp_path, [1, 2])
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(f'{{"file_name": "p{i:03d}.jpg", "caption": "c"}}\n' for i in (1, 2)))
    store = everything(tmp_path)
    path.write_text("x" * 60)
    assert [found.cause for found in store.read([0, 1])] == ["unreadable row", "unreadable file"]
    path.unlink()
    assert [one.cause for one in (*store.read([0]), *store.read_texts([0]))] == ["missing file"] * 2


def test_a_large_manifest_is_scanned_once_and_held_as_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_WORTH_KEEPING", 1)
    lines = [json.dumps({"file_name": f"{i % 500:04d}.jpg", "caption": f"c {i}"}) for i in range(1_000)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    store = everything(tmp_path)
    assert len(store) == 500 and builders.text(store, 7).captions == ("c 7", "c 507")
    monkeypatch.setattr(manifest._Scanner, "index", lambda *_, **__: pytest.fail("scanned again"))
    again = everything(tmp_path)
    assert keys(again) == keys(store) and builders.text(again, 499).captions == ("c 499", "c 999")
    assert again.fingerprint == store.fingerprint
    assert store._source._parts[0]._spans.nbytes + store._names.data.nbytes < 30 * 1_000


def test_fingerprints_follow_the_records_and_not_their_place(tmp_path):
    def build(place, caption="shade"):
        builders.write_folder(tmp_path / place, range(4))
        (tmp_path / place / "p001.txt").write_text(caption)
        return everything(tmp_path / place).fingerprint

    assert build("a") == build("b") != build("c", "another shade")
    for place, first in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / place / "captions.jsonl").write_text(f'{{"file_name": "p000.jpg", "caption": "{first}"}}\n')
    a, b, c = (everything(tmp_path / place).fingerprint for place in "abc")
    assert a == b != c
    (tmp_path / "b" / "p000.jpg").write_bytes(b"another picture")
    assert everything(tmp_path / "b").fingerprint != a


@pytest.mark.parametrize(
    "files, options",
    [
        (("a.jpg", "a.txt"), {}),
        (("a.jpg",), {"label_field": "stem"}),
        (("images/a.jpg", "captions.jsonl"), {}),
    ],
)
def test_folders_in_a_bucket(tmp_path, files, options):
    contents = {".jpg": b"picture", ".txt": b"a text", "sonl": b'{"file_name": "a.jpg", "caption": "a text"}\n'}
    for place in (f"memory://{tmp_path.name}", str(tmp_path)):
        for name in files:
            storage.write_atomically(f"{place}/{name}", contents[name[-4:]])
        (record,) = everything(place, **options).read([0])
        assert (record.key, record.image) == ("a.jpg", b"picture")
        assert record.captions == (() if options else ("a text",)) and record.metadata["stem"] == "a"


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(CocaError, match=r"the file .*none\.csv does not exist"):
        everything(tmp_path / "none.csv")
    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(CocaError, match=r"a\.json is no JSON list of rows"):
        everything(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('[{"file_name": "a.jpg"}, {"file_name"]')
    with pytest.raises(CocaError, match=r"row 2 of .*a\.json is no JSON"):
        everything(tmp_path / "a.json")
    builders.write_folder(tmp_path, [1])
    os.unlink(tmp_path / "a.json")
    store = everything(tmp_path)
    (tmp_path / "p001.txt").unlink()
    with pytest.raises(BadRecord, match="unreadable caption"):
        builders.record(store, 0)


def test_the_photos_the_clips_and_the_questions(shared_data):
    photos = folder(shared_data / "data/coco_photos")
    stores = [records.open_records(photos, split) for split in records.SPLITS]
    assert (
        sum(map(len, stores)) == 119
        and len(builders.text(stores[0], 0).captions) == 5
        and builders.record(stores[0], 0).image[:2] == b"\xff\xd8"
    )
    clips = everything(shared_data / "data/asl_clips", label_field="stem")
    assert len(clips) == 20 and builders.record(clips, 0).metadata["stem"] == "again"
    assert builders.record(clips, 0).image[:4] == b"\x1aE\xdf\xa3"
    questions = folder(
        shared_data / "data/easy_vqa/test/questions.json",
        image_field="images/{2}.png",
        text_fields=("{0} {1}",),
        holdout=1e-9,
    )
    store = records.open_records(questions, "train")
    assert len(store) == 1_000 and builders.record(store, 0).image[:4] == b"\x89PNG"
    answers = records.open_records(dataclasses.replace(questions, text_fields=("{1}",)), "train")
    assert set(builders.text(answers, 5).captions) <= set(
        (shared_data / "data/easy_vqa/answers.txt").read_text().split()
    )


def test_images_of_every_kind_that_the_decoder_reads_are_taken_and_others_are_counted_by_suffix(tmp_path):
    kinds = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.JPG": "JPEG", "d.avif": "AVIF", "e.apng": "PNG", "f.tiff": "TIFF"}
    for name, kind in kinds.items():
        (tmp_path / name).write_bytes(builders.picture(7, kind))
        (tmp_path / name).with_suffix(".txt").write_text("seven")
    for name in ("x.heic", "y.HEIC", "z.svg", "w.pgm", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).with_suffix(".txt").write_text("x")
    store = everything(tmp_path)
    assert keys(store) == sorted(kinds) and not {decode(one.image).getpixel((9, 9)) for one in store.read(range(6))} - {
        (grey, grey, grey) for grey in range(5, 10)
    }
    assert store.census.damage == {
        ".heic image (not supported)": 2,
        ".svg image (not supported)": 1,
        ".pgm image (not supported)": 1,
        "text without image": 1,
    }
    assert store.census.names == {
        ".heic image (not supported)": f"{tmp_path}/x.heic",
        ".svg image (not supported)": f"{tmp_path}/z.svg",
        ".pgm image (not supported)": f"{tmp_path}/w.pgm",
        "text without image": f"{tmp_path}/notes.txt",
    }
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.heic").write_bytes(b"x")
    with pytest.raises(CocaError, match=r"only \(there is \.heic\): \.heic files are not supported, so convert them"):
        everything(tmp_path / "only")


@pytest.mark.parametrize("search", [False, True])
def test_links_are_followed_and_hidden_names_are_left_out(tmp_path, search):
    elsewhere, photos = tmp_path / "elsewhere", tmp_path / "photos"
    for place in (elsewhere / "cat", photos / "dog", photos / ".hidden", photos / "dog" / ".ipynb_checkpoints"):
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(builders.picture(1))
    (photos / "dog" / ".2.png").write_bytes(builders.picture(1))
    (photos / "cat").symlink_to(elsewhere / "cat")
    (photos / "again").symlink_to(photos / "dog")  # a real folder below: once
    (elsewhere / "cat" / "loop").symlink_to(photos)
    (photos / "dog" / "3.png").symlink_to(elsewhere / "cat" / "1.png")
    (photos / "dog" / "nothing.png").symlink_to(tmp_path / "nothing")
    expected = ["cat/1.png", "dog/1.png", "dog/3.png"]
    if search:
        assert list(embedding_index_folder._images(photos)) == [*expected, "dog/nothing.png"]  # reported as unreadable
    else:
        store = everything(photos, label_field="folder")
        assert keys(store) == expected
        assert {builders.text(store, i).metadata["folder"] for i in range(3)} == {"cat", "dog"}
        assert store.census.damage == {"link to nothing": 1}
        assert store.census.names == {"link to nothing": f"{photos}/dog/nothing.png"}


@pytest.mark.parametrize(
    "name, format",
    [
        ("train-0.parquet", "parquet"),
        ("00000.tar", "tars"),
        ("a.tfrecord-00000-of-00002", "tfrecords"),
        ("a.array_record", "array_records"),
    ],
)
def test_a_folder_or_a_pattern_of_another_format_is_refused_with_that_format(tmp_path, name, format):
    (tmp_path / "inner").mkdir()
    for one in (f"inner/{name}", "dataset_infos.json"):
        (tmp_path / one).write_bytes(b"x")
    with pytest.raises(CocaError, match=rf"there is no image below .*: set format={format}$"):
        everything(tmp_path)
    with pytest.raises(CocaError, match=rf"{name} is a file that format=folder does not read: set format={format}"):
        everything(f"{tmp_path}/{{inner,other}}/{name}")


def test_a_folder_whose_name_has_braces_is_no_pattern(tmp_path):
    for name in ("a{b", "a{b,c}.tar"):
        (tmp_path / name).mkdir()
        builders.write_folder(tmp_path / name, range(3))
        assert len(everything(tmp_path / name)) == 3
