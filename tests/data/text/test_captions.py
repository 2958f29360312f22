"""Captions are cleaned with care, labels become texts through prompts."""

import json
import types
from collections import Counter

import numpy as np
import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records.record import BadRecord, Record
from coca_jax.data.text import class_names as class_files
from coca_jax.data.text.captions import Texts, clean
from coca_jax.errors import CocaError

STORE = types.SimpleNamespace(class_names=("cat", "great white shark", "dog"))
NAMELESS = types.SimpleNamespace(class_names=None)


def record(*captions, **metadata):
    return Record("k", b"", captions, metadata)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  a cat\n on\ta mat ", "a cat on a mat"),
        ("Fish &amp;amp; chips &lt;3", "Fish & chips <3"),
        ("a <b>bold</b> cat<br/>here", "a bold cat here"),
        ("1 < 2 and 3 > 2, said x", "1 < 2 and 3 > 2, said x"),
        ("cat photo | https://example.com/a?b=c", "cat photo"),
        ("Visit www.example.com for a cat", "Visit for a cat"),
        ("mail me@example.co.uk a cat", "mail a cat"),
        ("ca\u00adt\u200b \u202ahere\u202c\x00\x85", "cat here"),
        ("cafe\u0301", "caf\u00e9"),
        ("\U0001f469\u200d\U0001f52c scientist", "\U0001f469\u200d\U0001f52c scientist"),
        ("IMG_1234.JPG", ""),
        ("my photo (2).jpeg", ""),
        ("a photo of file.jpg on a desk", "a photo of file.jpg on a desk"),
        ("12345", ""),
        ("- | -", ""),
        ("", ""),
        ("https://example.com", ""),
        ("\u732b\u304c\u3044\u308b", "\u732b\u304c\u3044\u308b"),
        ("A red STOP sign!", "A red STOP sign!"),
    ],
)
def test_alt_texts(text, expected):
    assert clean(text, "alt_text") == expected


def test_long_alt_texts_end_with_a_word():
    cut = clean("word " * 400, "alt_text")
    assert 990 < len(cut) <= 1_000 and set(cut.split()) == {"word"}
    assert len(clean("x" * 5_000, "alt_text")) == 1_000


def test_only_spaces_are_changed_by_default():
    assert clean(" <b>1</b>\n www.x.com ", "spaces") == "<b>1</b> www.x.com"


def test_one_of_several_captions_is_drawn():
    texts = Texts(DatasetConfig(clean="alt_text"), NAMELESS)
    said = record("a cat", "IMG_1.jpg", "a &quot;mat&quot;")
    assert texts.all(said) == ("a cat", 'a "mat"')
    drawn = Counter(texts.draw(said, np.random.default_rng(i)) for i in range(200))
    assert set(drawn) == {"a cat", 'a "mat"'} and min(drawn.values()) > 60
    with pytest.raises(BadRecord, match="empty caption"):
        texts.draw(record("IMG_1.jpg"), np.random.default_rng(0))


@pytest.mark.parametrize(
    "label, names",
    [
        (1, ["great white shark"]),
        (np.int64(0), ["cat"]),
        ("2", ["dog"]),
        (b"1", ["great white shark"]),
        ([0, 2], ["cat", "dog"]),
        (np.array([2, 0]), ["dog", "cat"]),
        ([0, 0], ["cat"]),
        ("great_white_shark", ["great white shark"]),
        (" dog ", ["dog"]),
    ],
)
def test_labels_are_numbers_or_names(label, names):
    assert Texts(DatasetConfig(label_field="label"), STORE).labels({"label": label}) == names


@pytest.mark.parametrize(
    "metadata, cause",
    [
        ({}, "no label"),
        ({"label": None}, "no label"),
        ({"label": []}, "empty caption"),
        ({"label": " "}, "empty caption"),
        ({"label": "polar_bear"}, "label has a value that class_names does not name"),
        ({"label": ["cat", "Cat"]}, "class_names does not name"),
        ({"label": 3}, "class_names does not name"),
        ({"label": -1}, "class_names does not name"),
        ({"label": 0.5}, "neither a class number"),
        ({"label": True}, "neither a class number"),
    ],
)
def test_labels_that_say_nothing(metadata, cause):
    with pytest.raises(BadRecord, match=cause):
        Texts(DatasetConfig(label_field="label"), STORE).draw(record(**metadata), np.random.default_rng(0))


@pytest.mark.parametrize("label", ["3", "-1", "0.0", "1.0", "2.", "1e0", "nan", " 7 ", "+5", 3, -1, 0.0, float("nan")])
def test_numbers_without_a_class_name_are_bad_records_as_text_and_as_numbers(label):
    """Rows of a CSV hold text, those of JSONL numbers: classes 1, 2, 3 of three names, numbers with a decimal point."""
    named = Texts(DatasetConfig(label_field="label", prompts=("a photo of a {}.",)), STORE)
    with pytest.raises(BadRecord, match=r"class_names does not name|neither a class number"):
        named.draw(record(label=label), np.random.default_rng(0))


def test_numbers_that_are_names_stay_names():
    years = types.SimpleNamespace(class_names=("1984", "2001"))
    texts = Texts(DatasetConfig(label_field="label"), years)
    assert texts.labels({"label": "1984"}) == ["1984"] and texts.labels({"label": " 1 "}) == ["2001"]
    assert Texts(DatasetConfig(label_field="label"), NAMELESS).labels({"label": "3"}) == ["3"]


def test_a_label_is_a_name_of_a_class_or_without_class_names_any_text(tmp_path):
    """A misspelt label would train as a class of its own."""
    (tmp_path / "names.json").write_text(json.dumps([["tench", "tinca_tinca"], "goldfish"]))
    texts = Texts(DatasetConfig(label_field="label", class_names=str(tmp_path / "names.json")), NAMELESS)
    assert [texts.labels({"label": label}) for label in ("tench", "tinca_tinca", "1")] == [
        ["tench"],
        ["tinca tinca"],
        ["goldfish"],
    ]
    with pytest.raises(BadRecord, match="class_names does not name"):
        texts.labels({"label": "gold_fish"})
    assert Texts(DatasetConfig(label_field="label"), NAMELESS).labels({"label": "polar_bear"}) == ["polar bear"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_class_number_is_its_line_whatever_ends_the_lines(tmp_path, end, bom):
    path = tmp_path / "names.txt"

    def names(text):
        path.write_bytes(bom + text.replace("\n", end).encode())
        return class_files.class_names(str(path))

    assert names("cat\n dog \nowl\n\n  \n") == names("cat\ndog\nowl") == [("cat",), ("dog",), ("owl",)]
    assert names("sea\u2028horse\ndog\x0b\x1c") == [("sea\u2028horse",), ("dog",)]
    for blank in ("cat\n\nowl\n", "cat\n \t\nowl"):
        with pytest.raises(CocaError, match=r"line 2 of .*names\.txt is blank, and a line's place is its class number"):
            names(blank)
        with pytest.raises(CocaError, match=r"line 2 of .*names\.txt is blank"):
            class_files.class_numbers(str(path))
    with pytest.raises(CocaError, match=r"line 1 of .*names\.txt is blank"):
        names("\ncat")


def test_a_class_without_a_name_is_refused_in_json_too(tmp_path):
    for value, label in ((["cat", "", "owl"], "1"), (["cat", ["owl", " "]], "1"), ({"n1": "cat", "n2": None}, "n2")):
        (tmp_path / "names.json").write_text(json.dumps(value))
        with pytest.raises(CocaError, match=rf"names\.json has .* for class {label}, which is not a name"):
            class_files.class_names(str(tmp_path / "names.json"))


def test_labels_are_shuffled_and_put_into_a_random_prompt():
    texts = Texts(DatasetConfig(label_field="label", prompts=("a photo of {}.", "{}, {0}")), STORE)
    several = record("ignored", label=[0, 1])
    drawn = Counter(texts.draw(several, np.random.default_rng(i)) for i in range(400))
    assert drawn.keys() == {
        "a photo of cat, great white shark.",
        "a photo of great white shark, cat.",
        "cat, great white shark, {0}",
        "great white shark, cat, {0}",
    }
    assert min(drawn.values()) > 60
    assert texts.all(several) == ("a photo of cat, great white shark.",)


def test_names_and_prompts_may_lie_in_files(tmp_path):
    (tmp_path / "names.json").write_text(json.dumps(["tench", "goldfish"]))
    (tmp_path / "wnids.json").write_text(json.dumps({"n01440764": "tench"}))
    (tmp_path / "prompts.txt").write_text("a photo of a {}.\n\nart of the {}.\n")
    config = DatasetConfig(
        label_field="label", class_names=str(tmp_path / "names.json"), prompts=(str(tmp_path / "prompts.txt"),)
    )
    texts = Texts(config, NAMELESS)
    assert texts.prompts == ("a photo of a {}.", "art of the {}.")
    assert texts.all(record(label=1)) == ("a photo of a goldfish.",)
    by_label = Texts(DatasetConfig(label_field="label", class_names=str(tmp_path / "wnids.json")), NAMELESS)
    assert by_label.all(record(label="n01440764")) == ("tench",)
    plain = DatasetConfig(label_field="label")
    assert Texts(plain, STORE).fingerprint != Texts(plain, NAMELESS).fingerprint
    assert len({texts.fingerprint, by_label.fingerprint, Texts(DatasetConfig(), NAMELESS).fingerprint}) == 3
    (tmp_path / "prompts.txt").write_text("a photo\n")
    with pytest.raises(CocaError, match=r"prompts.txt"):
        Texts(config, NAMELESS)
    with pytest.raises(CocaError, match=r"gone.txt"):
        Texts(DatasetConfig(label_field="label", prompts=("gone.txt",)), NAMELESS)


def test_names_that_are_numbers_of_wordnet_are_said(caplog):
    numbers = types.SimpleNamespace(class_names=("n01440764", "n01443537"))
    Texts(DatasetConfig(path="imagenet", label_field="label"), numbers)
    assert "imagenet are WordNet's numbers, such as n01440764" in caplog.text
    caplog.clear()
    Texts(DatasetConfig(label_field="label"), types.SimpleNamespace(class_names=("n01440764", "tench")))
    Texts(DatasetConfig(), numbers)
    Texts(DatasetConfig(label_field="label"), NAMELESS)
    assert not caplog.text


def test_labels_that_cannot_be_encoded_are_replaced():
    texts = Texts(DatasetConfig(label_field="stem", prompts=("a {}",)), NAMELESS)
    assert texts.all(record(stem="caf\udce9_noir")) == ("a caf? noir",)


@pytest.mark.parametrize("name", ["names.txt", "names.json", "prompts.md"])
def test_a_file_of_class_names_in_another_encoding_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes('["café"]'.encode("latin-1"))
    for read in (class_files.class_names, lambda spec: class_files.prompts((spec,)), class_files.class_numbers):
        with pytest.raises(CocaError, match=rf"{name}, a file of .*, is not UTF-8: save it as UTF-8$"):
            read(str(tmp_path / name))
