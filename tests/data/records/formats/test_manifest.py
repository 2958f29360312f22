"""Manifests as people write them: separators, quotes, columns, encodings, names of files."""

import csv
import json

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import open as records
from coca_jax.data.records.record import BadRecord
from coca_jax.data.text.captions import Texts
from coca_jax.errors import CocaError
from tests.data import builders


def opened(path, **options):
    return records.open_records(DatasetConfig(format="folder", path=str(path), holdout=1e-9, **options), "train")


def captions(store):
    return {record.key: record.captions for record in store.read(range(len(store)))}


@pytest.fixture
def place(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(builders.picture(1, "JPEG"))
    return tmp_path


def refused(path, message, **options):
    with pytest.raises(CocaError, match=message) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line, count", [("b.jpg,a dog, a cat", 3), ("b.jpg", 1), ("b.jpg,a dog,", 3), ('b.jpg,"a ""dog"", red",x,y', 4)]
)
def test_a_row_with_more_or_fewer_values_than_columns_is_refused(place, line, count):
    (place / "captions.csv").write_text(f"file_name,caption\na.jpg,one\n\n{line}\nc.jpg,three\n")
    refused(place, rf"^line 4 of .*captions\.csv has {count} values?, but the first line names 2 columns")


def test_rows_of_separators_alone_are_no_records(place):
    (place / "captions.csv").write_text("file_name,caption,note\na.jpg,one,\n,,\n  \nb.jpg,two,x\n,,\n")
    assert captions(opened(place)) == {"a.jpg": ("one",), "b.jpg": ("two",)}


@pytest.mark.parametrize(
    "text",
    [
        'a.jpg,one\nb.jpg,"two\nc.jpg,three\n',  # to the end of the file
        'a.jpg,one\nb.jpg,"two\n',
        'a.jpg,one\nb.jpg,"two',
        'a.jpg,one\nb.jpg,"two\nlines\n\n',
        'a.jpg,one\nb.jpg,"two\nc.jpg,3" wide\n',  # to a mark within a later value
        'a.jpg,one\nb.jpg,"two\nc.jpg,"three"\n',
        'a.jpg,one\nb.jpg,"two\nc.jpg,it is 3"\n',  # to a mark that ends a later value
        'a.jpg,one\nb.jpg,"two\nc.jpg,three\na.jpg,it is 3"\r\n',
        'a.jpg,one\nb.jpg,"two' + "\nc.jpg,three" * 20_000,  # longer than any value may be
    ],
)
def test_a_quote_that_never_closes_is_refused(place, text):
    (place / "captions.csv").write_text("file_name,caption\n" + text)
    refused(
        place, r"^line 3 of .*captions\.csv has a value that begins with a quotation mark and does not end with one"
    )


@pytest.mark.parametrize(
    "text",
    [
        'one,a.jpg\n"two,b.jpg\nthree,c.jpg\nit is 3",a.jpg\n',
        'one,a.jpg\n"two,b.jpg\n"three",c.jpg\n',
        'one,a.jpg\n"two,b.jpg\n\nthree,c.jpg',
    ],
)
def test_a_quote_that_never_closes_is_refused_where_captions_come_first(place, text):
    (place / "captions.csv").write_text("caption,file_name\n" + text)
    refused(
        place, r"^line 3 of .*captions\.csv has a value that begins with a quotation mark and does not end with one"
    )


@pytest.mark.parametrize(
    "text",
    [
        'caption,id\none,1\n"two,2\nthree,3\nit is 3",4\n',
        'id,caption\n1,one\n2,"two\n3,it is 3"\n',
        'id,caption\n1,one\n2,"two, red\n3,it is 3"\n',
        'id,caption\nimg_01,one\nimg_2,"two\nimg_3,it is 3"\n',
    ],
)
def test_a_quote_that_never_closes_is_refused_where_a_template_names_the_images(place, text):
    (place / "captions.csv").write_text(text)
    refused(place, r"line 3 of .*captions\.csv has a value that begins with a quotation mark", image_field="{id}.jpg")


def test_texts_of_several_lines_are_no_rows(place):
    (place / "captions.csv").write_text('id,caption\n1,"one\n2, and 3"\n2,"two\nHello,you"\n')
    store = opened(place, image_field="{id}.jpg")
    assert [builders.text(store, i).captions for i in range(2)] == [("one 2, and 3",), ("two Hello,you",)]


def test_quoted_values_are_read(place):
    (place / "captions.csv").write_text('caption,file_name\n"one\nor, two",a.jpg\n"three\n",b.jpg\n')
    assert captions(opened(place)) == {"a.jpg": ("one or, two",), "b.jpg": ("three",)}
    rows = [("a.jpg", 'two\nlines, "quoted"\n\nand a third'), ("b.jpg", '"'), ("c.jpg", "\n a,b\n")]
    with open(place / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    assert captions(opened(place)) == {name: (" ".join(text.split()),) for name, text in rows}
    (place / "captions.csv").write_text('file_name,caption\na.jpg,"Hi" he said\nb.jpg,it is 5" wide\n')
    assert captions(opened(place)) == {"a.jpg": ("Hi he said",), "b.jpg": ('it is 5" wide',)}


BREAKS = ("\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\x1d", "\x1e")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "txt"])
def test_a_value_goes_on_behind_other_line_separators(place, kind):
    texts = {"a.jpg": "one".join(BREAKS), "b.jpg": f"two{BREAKS[0]}two", "c.jpg": "three"}
    rows = [{"file_name": name, "caption": text, "n": name} for name, text in texts.items()]
    with open(place / f"captions.{kind}", "w", newline="", encoding="utf-8") as file:
        if kind in ("csv", "tsv"):
            writer = csv.DictWriter(file, rows[0], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
        elif kind == "jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        elif kind == "json":
            json.dump(rows, file, ensure_ascii=False)
        else:
            for row in rows:
                (place / row["file_name"]).with_suffix(".txt").write_text(row["caption"], "utf-8")
    store = opened(place)
    assert captions(store) == {name: (" ".join(text.split()),) for name, text in texts.items()}
    assert kind == "txt" or builders.text(store, 1).metadata["n"] == "b.jpg"


@pytest.mark.parametrize(
    "header, row",
    [
        ("filepath\ttitle", "a.jpg\ta cat, grey"),
        ("title\tfilepath", "a cat, grey\ta.jpg"),
        ("image;text", "a.jpg;a cat, grey"),
        ("image_path|caption", "a.jpg|a cat, grey"),
        ("file_name, caption", 'a.jpg, "a cat, grey"'),
        (" path , text ", 'a.jpg, "a cat, grey"'),
        ("file,description", 'a.jpg,"a cat, grey"'),
        ('"img_path","captions"', '"a.jpg","a cat, grey"'),
        (",image,caption", '0,a.jpg,"a cat, grey"'),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "CSV"])
def test_separators_and_usual_columns_are_recognised(place, header, row, suffix):
    path = place / f"list.{suffix}"
    path.write_text(f"{header}\r\n{row}\r\n")
    assert captions(opened(path)) == {"a.jpg": ("a cat, grey",)}


def test_other_columns_are_shown_and_chosen(place):
    path = place / "list.csv"
    path.write_text("picture;words;more\na.jpg;one;uno\n")
    refused(path, r"no image under a usual name.*there is picture, words, more.*image_field")
    refused(
        path, r"no caption under a usual name \(there is .*picture, words, more\).*text_fields", image_field="picture"
    )
    refused(
        path,
        r"no field 'wrods' \(there is .*words, more\): change text_fields",
        image_field="picture",
        text_fields=("words", "wrods"),
    )
    refused(path, r"no field 'klass' .*change label_field", image_field="picture", label_field="klass")
    store = opened(path, image_field="picture", text_fields=("words", "more"))
    assert captions(store) == {"a.jpg": ("one", "uno")}
    path.write_text("a.jpg^one\n")
    refused(path, r"first line of .*which names the columns, .*there is a\.jpg\^one")
    path.write_text("file_name,caption,caption\na.jpg,one,two\n")
    refused(path, "has the column 'caption' twice")


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_fields_that_no_row_has_are_named(place, kind):
    rows = [{"file_name": "a.jpg", "caption": "one", "n": 1}, {"file_name": "b.jpg", "alt": {"x": ["two"]}}]
    path = place / f"list.{kind}"
    path.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    refused(
        path,
        rf"list\.{kind} has no field 'captoin' \(there is .*file_name, caption, n.*\): change text_fields",
        text_fields=("captoin",),
    )
    refused(path, r"has no field 'b' .*change text_fields", text_fields=("{caption} {b}",))
    refused(path, r"has no field 'class' .*change label_field", label_field="class")
    assert captions(opened(path, text_fields=("caption", "alt/x"))) == {"a.jpg": ("one",), "b.jpg": ("two",)}
    assert len(opened(path, label_field="folder")) == 2
    path.write_text(
        json.dumps([{"file_name": "a.jpg", "size": 1}])[1:-1]
        if kind == "jsonl"
        else '[{"file_name": "a.jpg", "size": 1}]'
    )
    refused(path, r"has no caption under a usual name \(there is .*file_name, size\)")


def test_fields_of_text_files_are_checked(place):
    (place / "a.txt").write_text("one")
    refused(place, r"has no field 'title' \(there is stem, folder, txt\)", text_fields=("title",))
    refused(place, r"has no field 'label' \(there is stem, folder, txt\)", label_field="label")
    assert captions(opened(place, text_fields=("txt",))) == {"a.jpg": ("one",)}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "txt"])
def test_another_encoding_is_named(place, kind, encoding):
    rows = [("a.jpg", "plain"), ("b.jpg", "caf\u00e9"), ("c.jpg", "na\u00efve")]
    dicts = [json.dumps({"file_name": name, "caption": text}, ensure_ascii=False) for name, text in rows]
    if kind == "txt":
        for name, text in rows:
            (place / name).with_suffix(".txt").write_text(text, encoding)
    else:
        lines = {"csv": ["file_name,caption", *map(",".join, rows)], "jsonl": dicts, "json": [f"[{','.join(dicts)}]"]}
        (place / f"captions.{kind}").write_text("\n".join(lines[kind]) + "\n", encoding)
    first = {"csv": "line 3", "jsonl": "line 2", "json": "row 2", "txt": "b.txt"}[kind]
    refused(
        place,
        "is UTF-16: save it as UTF-8"
        if encoding == "utf-16" and kind != "txt"
        else f"{first if encoding != 'utf-16' else ''}.*is not UTF-8.*iconv",
    )


def test_a_few_damaged_texts_do_not_make_another_encoding(place):
    lines = ["file_name,caption", "a.jpg,caf\u00e9", "b.jpg,na\u00efve", "c.jpg,"]
    (place / "captions.csv").write_bytes("\n".join(lines).encode() + b"\xff\n")
    store = opened(place)
    assert [getattr(one, "cause", "") for one in store.read(range(3))] == ["", "", "caption is not UTF-8"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_absolute_paths_and_colons_are_read(place, suffix, monkeypatch):
    names = ["12:30.jpg", "a:b/c: d.jpg"]
    (place / "a:b").mkdir()
    for name in names:
        (place / name).write_bytes(builders.picture(1))
    (place.parent / f"link-{place.name}").symlink_to(place)
    given = [str(place / names[0]), names[1], f"file://{place}/x/../b.jpg", f"./x/../{names[0]}"]
    text = {
        "csv": "file_name,caption\n" + "".join(f"{name},text\n" for name in given),
        "jsonl": "".join(json.dumps({"file_name": name, "caption": "text"}) + "\n" for name in given),
    }[suffix]
    (place / f"list.{suffix}").write_text(text)
    expected = {names[0]: ("text", "text"), names[1]: ("text",), "b.jpg": ("text",)}
    assert captions(opened(place / f"list.{suffix}")) == expected
    monkeypatch.chdir(place)
    assert captions(opened(f"list.{suffix}")) == expected
    assert captions(opened(place.parent / f"link-{place.name}" / f"list.{suffix}")) == expected


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "{place}/../x.jpg",
        "{place}x/a.jpg",
        "C:\\a.jpg",
        "gs://b/a.jpg",
        "https://x.org/a.jpg",
        "x/../../a.jpg",
        "file:///etc/passwd",
    ],
)
def test_files_outside_the_manifests_folder_are_refused(place, name):
    (place / "list.csv").write_text(f"file_name,caption\n{name.format(place=place)},text\n")
    refused(place / "list.csv", "line 2 of .* names the file .* must lie below the folder of its manifest")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("splits", [("",), ("train/", "test/"), ("data/train/a/", "data/train/b/", "test/")])
def test_hugging_faces_image_folders_are_read(tmp_path, kind, splits):
    expected = {}
    for split in splits:
        (tmp_path / split).mkdir(parents=True, exist_ok=True)
        rows = [(f"{i:02d}.png", f"{split}{i}") for i in range(4)]
        for number, (name, text) in enumerate(rows):
            (tmp_path / split / name).write_bytes(builders.picture(number))
            expected[f"{split}{name}"] = (text,)
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
        lines = ["file_name,text", *map(",".join, rows)] if kind == "csv" else lines
        (tmp_path / split / f"metadata.{kind}").write_text("\n".join(lines))
    store = opened(tmp_path)
    assert captions(store) == expected and {record.image for record in store.read([0, 3])} == set(
        map(builders.picture, (0, 3))
    )
    if len(splits) > 1:
        dataset = DatasetConfig(
            format="folder", path=str(tmp_path), train_files=("*train/*",), evaluation_files=("test/*",)
        )
        train, held_out = (records.open_records(dataset, split) for split in records.SPLITS)
        assert len(train) == 4 * (len(splits) - 1) and set(captions(held_out)) == {
            f"test/{i:02d}.png" for i in range(4)
        }
        assert opened(tmp_path).fingerprint == store.fingerprint
        (tmp_path / splits[0] / f"metadata.{kind}").unlink()
        assert opened(tmp_path).fingerprint != store.fingerprint


@pytest.mark.parametrize("name", ["metadata.csv", "captions.csv"])
def test_one_table_in_a_folder_below_names_the_images_beside_it(tmp_path, name):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.png").write_bytes(builders.picture(1))
    (tmp_path / "train" / name).write_text("file_name,caption\n1.png,a text\n")
    for options in ({}, {"train_files": ("train/*",)}):
        store = opened(tmp_path, **options)
        assert builders.record(store, 0).key == "train/1.png" and builders.record(store, 0).captions == ("a text",)


def test_labels_of_image_folders_come_from_where_they_are(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(builders.picture(1))
    (tmp_path / "cat" / "2.png").write_bytes(builders.picture(2))
    (tmp_path / "metadata.csv").write_text("file_name,label\ncat/1.png,tom\n")
    assert builders.text(opened(tmp_path, label_field="label"), 0).metadata["label"] == "tom"
    assert len(opened(tmp_path, label_field="folder")) == 2


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_label_numbers_without_a_class_name_are_bad_records(place, kind):
    for i in range(6):
        (place / f"{i}.jpg").write_bytes(builders.picture(i))
    (place / "names.txt").write_text("red\ngreen\nblue\n")
    labels = ["1", "2", "3", "0.0", "-1", "7e0"]
    if kind == "jsonl":
        lines = [json.dumps({"file_name": f"{i}.jpg", "label": json.loads(label)}) for i, label in enumerate(labels)]
    else:
        rows = [("file_name", "label"), *((f"{i}.jpg", label) for i, label in enumerate(labels))]
        lines = [("," if kind == "csv" else "\t").join(row) for row in rows]
    (place / f"list.{kind}").write_text("\n".join(lines))
    names = {"class_names": str(place / "names.txt"), "label_field": "label", "prompts": ("a {} thing.",)}
    dataset = DatasetConfig(format="folder", path=str(place / f"list.{kind}"), holdout=0.0, **names)
    store = records.open_records(dataset, "train")
    texts = Texts(dataset, store)
    found = []
    for record in store.read(range(6)):
        try:
            found += texts.all(record)
        except BadRecord as error:
            found.append("bad" if error.cause.startswith("label ") else error.cause)
    assert found == ["a green thing.", "a blue thing.", "bad", "bad", "bad", "bad"]


@pytest.mark.parametrize(
    "separator, value, texts",
    [
        ("|", "a dog|a brown dog", ("a dog", "a brown dog")),
        ("json", '["a dog", "a | b", ""]', ("a dog", "a | b")),
        ("\n", "a dog\n\na brown dog", ("a dog", "a brown dog")),
        ("", "a dog|x", ("a dog|x",)),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_several_captions_of_a_value_are_divided_on_request(place, kind, separator, value, texts):
    if kind == "txt":
        (place / "a.txt").write_text(value)
    elif kind == "jsonl":
        (place / "captions.jsonl").write_text(json.dumps({"file_name": "a.jpg", "caption": value}))
    else:
        with open(place / f"captions.{kind}", "w", newline="") as file:
            csv.writer(file, delimiter="," if kind == "csv" else "\t").writerows(
                [("file_name", "caption"), ("a.jpg", value)]
            )
    assert captions(opened(place, caption_separator=separator)) == {"a.jpg": texts}


def test_a_value_that_is_not_a_json_list_is_a_bad_record(place):
    (place / "captions.csv").write_text('file_name,caption\na.jpg,a dog\nb.jpg,"[""x""]"\nc.jpg,{}\n')
    store = opened(place, caption_separator="json")
    assert [getattr(one, "cause", "") for one in store.read(range(3))] == [
        "caption is not a JSON list",
        "",
        "caption is not a JSON list",
    ]


@pytest.mark.parametrize(
    "name, todo",
    [
        ("x.zip", "unpack it"),
        ("x.csv.gz", "unpack it"),
        ("x.parquet", "format=parquet"),
        ("x.tar", "format=tars"),
        ("x.jpg", "give the folder that holds it"),
        ("x.txt", "give the folder"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_kinds(tmp_path, name, todo):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, rf"format=folder does not read: .*{todo}.*\.jsonl, \.csv, \.tsv, \.json")
