"""What rows say under which name."""

import pytest

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

NESTED = {
    "captions": [{"text": "a"}, {"text": "b"}, {"id": 3}],
    "a/b": {"c": 1},
    "deep": {"x": {"y": [1, 2]}},
    "n": None,
}


@pytest.mark.parametrize(
    "row, field, value",
    [
        (NESTED, "captions/text", ["a", "b"]),
        (NESTED, "a/b", {"c": 1}),
        (NESTED, "a/b/c", 1),
        (NESTED, "deep/x/y", [1, 2]),
        (NESTED, "captions/none", None),
        (NESTED, "none", None),
        (NESTED, "deep/none/y", None),
        (NESTED, "n", None),
        ([4, "x"], "1", "x"),
        ([4, "x"], "2", None),
        ([4, "x"], "text", None),
        ("text", "text", None),
        (None, "text", None),
    ],
)
def test_fields_are_found_through_dicts_and_lists(row, field, value):
    assert fields.lookup(row, field) == value


@pytest.mark.parametrize(
    "template, row, texts",
    [
        ("{q} {a}", {"q": "who?", "a": "me"}, ["who? me"]),
        ("{0}-{2}", ["x", "y", 7], ["x-7"]),
        ("{q} {a}", {"q": "who?", "a": ["me", "you"]}, ["who? me", "who? you"]),
        ("{q} {a}", {"q": "who?"}, []),
        ("{a/b}", {"a": {"b": b"bytes"}}, ["bytes"]),
        ("{q}", {"q": {"no": "text"}}, []),
        ("{{{q}}}", {"q": 1}, ["{1}"]),
        ("{a}{b}", {"a": ["x"] * 50, "b": ["y"] * 50}, ["xy"] * 100),
    ],
)
def test_templates_are_filled_with_each_combination(template, row, texts):
    assert fields.fill(template, row) == texts


def test_templates_reach_nothing_but_fields():
    assert fields.fill("{a.__class__}", {"a": "x"}) == [] == fields.fill("{a[0]}", {"a": "xy"})


@pytest.mark.parametrize(
    "options, row, captions",
    [
        ({}, {"caption": " a \n b ", "text": "second"}, ("a b",)),
        ({}, {"text": "x", "txt": b"\xef\xbb\xbffile"}, ("file",)),
        ({}, {"captions": ["one", 2, "", "two"]}, ("one", "two")),
        ({}, {"sentences": [{"raw": "r"}]}, ("r",)),
        ({"text_fields": ("b", "none", "{a}!", "c")}, {"a": "A", "b": "B", "c": ["C", "D"]}, ("B", "A!", "C", "D")),
        ({"label_field": "n"}, {"n": 3}, ()),
        ({"label_field": "n"}, {"n": 3, "text": b"\xff"}, ()),
    ],
)
def test_captions(options, row, captions):
    assert fields.captions(row, DatasetConfig(**options)) == captions


@pytest.mark.parametrize(
    "row, cause",
    [
        ({}, "empty caption"),
        ({"caption": ""}, "empty caption"),
        ({"caption": 5}, "empty caption"),
        ({"txt": b"\xff\xfe"}, "caption is not UTF-8"),
        ({"txt": b"", "caption": "not looked at"}, "empty caption"),
    ],
)
def test_rows_without_a_caption(row, cause):
    with pytest.raises(BadRecord, match=cause):
        fields.captions(row, DatasetConfig())


def deep(levels: int) -> list:
    row = []
    for _ in range(levels):
        row = [row]
    return row


@pytest.mark.parametrize("options", [{}, {"text_fields": ("a",)}, {"text_fields": ("{a/b}",)}, {"label_field": "a"}])
def test_a_row_nested_too_deeply_is_a_bad_record(options):
    with pytest.raises(BadRecord, match="unreadable row"):
        fields.captions(deep(100_000), DatasetConfig(**options))


@pytest.mark.parametrize(
    "text",
    [rb'{"caption": "a \ud83d b", "c\uDE00": [["\udc00"]]}', '{"caption": "a \\uD83D b", "c\\ude00": [["\\uDC00"]]}'],
)
def test_halves_of_surrogate_pairs_are_replaced(text):
    assert fields.parse_json(text) == {"caption": "a ? b", "c?": [["?"]]}
    assert fields.parse_json(rb'{"a": "\ud83d\ude00", "b": 0.1}') == {"a": "\U0001f600", "b": 0.1}
    assert fields.parse_json(b'{"a": "\xed\xa0\xbd"}') is None  # as other bytes that are not UTF-8


def test_metadata_is_text_and_numbers():
    row = {"a": b"text", "b": b"\xff", "c": [b"x", 1], "d": [b"\xff"], "image": b"p", "e": {"f": 1}}
    assert fields.metadata(row, ["image"]) == {"a": "text", "c": ["x", 1], "e": {"f": 1}}
    assert fields.metadata(["x", 2]) == {"0": "x", "1": 2} and fields.metadata(None) == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"text_fields": ("{a",)}, r"text_fields has '\{a'"),
        ({"text_fields": ("a", "{} x")}, "braces without a name"),
        ({"image_field": "}.png"}, "image_field has"),
    ],
)
def test_templates_that_cannot_be_read_are_named(options, message):
    with pytest.raises(CocaError, match=message):
        fields.check_templates(DatasetConfig(**options))


@pytest.mark.parametrize(
    "text, value", [(b'{"a": 1}', {"a": 1}), (b"[1]", [1]), (b"{", None), (b"\xff", None), (b"[" * 100_000, None)]
)
def test_what_is_no_json_is_none(text, value):
    assert fields.parse_json(text) == value


def test_fields_that_no_row_has_are_found_whatever_the_rows_are():
    check = fields.FieldCheck(DatasetConfig(text_fields=("a/b", "{0} {c}")))
    for row in ({"a": [{"b": 1}]}, ["x"], deep(100_000), {"d": 1}):
        check.add(row)
    assert check.problem("the file") == "the file has no field 'c' (there is a, 0, d): change text_fields"
    assert not check.add({"c": 0}).problem("the file")
    usual = fields.FieldCheck(DatasetConfig()).add({str(i): i for i in range(99)})
    assert "(there is 0, 1, " in usual.problem("it") and " …)" in usual.problem("it")
    assert not usual.add({"captions": [{"text": "x"}]}).problem("it")


def test_a_row_names_its_file_in_the_chosen_or_a_usual_field():
    row = {"file_name": "", "image": {"bytes": b"x"}, "path": "a.jpg", "n": 7}
    assert fields.file_name(row, "") == "a.jpg"
    assert fields.file_name(row, "x/{n}.jpg") == "x/7.jpg"
    assert fields.file_name(row, "n") is None
