"""Counts on sets whose every number is known, dirt included."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.tools import sets, stats, stats_report
from tests.data import builders
from tests.tools.commands import call, photo


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.fixture
def config(tmp_path):
    """30 records: 24 clean ones, of which two have the same picture and 13 the same caption; 6 of five kinds of dirt."""
    members = []

    def add(key: str, picture: bytes, caption: bytes) -> None:
        members.extend([(f"{key}.jpg", picture), (f"{key}.txt", caption)])

    for i in range(24):
        image = builders.encoded(photo(i, 60 if i < 20 else 90, 60), "JPEG" if i < 20 else "PNG")
        add(f"clean{i:02}", members[0][1] if i == 1 else image, b"the same words" if i < 13 else f"shade {i}".encode())
    huge = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(huge, "PNG")
    add("html0", b"<html>404</html>", b"a page")
    add("html1", b"<html>404</html>", b"another page")
    add("cut", truncated(builders.encoded(photo(50), "JPEG")), b"half a picture")
    add("huge", huge.getvalue(), b"a bomb")
    add("silent", builders.picture(7), b"  \n")
    add("latin", builders.picture(8), "caf\xe9".encode("latin-1"))
    members.append(("alone.jpg", builders.picture(9)))
    builders.write_tar(tmp_path / "a.tar", members)
    builders.write_tar(tmp_path / "z.tar", builders.members(range(3)))
    return builders.config(format="tars", path=str(tmp_path), evaluation_files=("z*",), length=8)


@pytest.fixture(scope="module")
def vocabulary():
    return train_vocabulary([*(f"shade {i}" for i in range(30)), "the same words"], 40)


def test_counts(config, vocabulary):
    store = records.open_records(config.data, "train")
    found = stats.measure(config.data, store, vocabulary, 16, workers=2)
    assert (found.records, found.read, len(found.per_picture)) == (30, 30, 24)
    assert found.damage == {"picture without text": 1}
    assert found.corrupt_counts == {
        "not an image": 2,
        "damaged image": 1,
        "too many pixels": 1,
        "empty caption": 1,
        "caption is not UTF-8": 1,
    }
    assert [name.rpartition(":")[2] for name in found.corrupt["not an image"]] == ["html0", "html1"]
    assert found.formats == {"JPEG": 20, "PNG": 4}
    assert sorted(found.widths) == [60] * 20 + [90] * 4 and set(found.heights) == {60}
    assert found.identical == 1 and found.per_picture.tolist() == [1] * 24
    assert (len(found.characters), found.distinct, found.often) == (24, 12, [("the same words", 13)])
    assert found.characters.max() == len("the same words")
    said = vocabulary.encode(["the same words"] * 13 + [f"shade {i}" for i in range(13, 24)], 32)
    assert found.tokens.tolist() == (said != vocabulary.pad_id).sum(1).tolist()

    values = stats_report.as_dict({"tars": found}, config.model.text.length)["tars"]
    assert values["aspect"]["square"] == 20 and values["aspect"]["4:3 to 3:2"] + values["aspect"]["3:2 to 2:1"] == 4
    assert values["tokens"]["longer"] == int((found.tokens > 8).sum()) > 0 and values["repeated_captions"] == 12
    assert sum(values["width"]["histogram"]["counts"]) == 24 and values["width"]["p95"] == 90


def test_captions_of_a_folder_and_of_labels(tmp_path, vocabulary):
    (tmp_path / "captions.jsonl").write_text(
        "".join(
            json.dumps({"file_name": f"{i}.png", "captions": ["one", "two"][: 1 + i % 2], "kind": i % 3}) + "\n"
            for i in range(6)
        )
    )
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(builders.picture(20 * i))
    (tmp_path / "kinds.txt").write_text("cat\ndog\nemu\n")
    config = builders.config(format="folder", path=str(tmp_path), holdout=1e-9)
    found = stats.measure(config.data, records.open_records(config.data, "train"), vocabulary, 16)
    assert sorted(found.per_picture) == [1, 1, 1, 2, 2, 2] and found.often == [("one", 6), ("two", 3)]
    labelled = builders.with_data(
        config, label_field="kind", class_names=str(tmp_path / "kinds.txt"), prompts=("a {}",)
    )
    found = stats.measure(labelled.data, records.open_records(labelled.data, "train"), vocabulary, 16)
    assert sorted(found.often) == [("a cat", 2), ("a dog", 2), ("a emu", 2)]


def test_the_sample_is_evenly_spread_and_always_the_same():
    assert sets.spread(10, 0).tolist() == sets.spread(10, 10).tolist() == list(range(10))
    picked = sets.spread(1_000_003, 1_000)
    assert len(set(picked.tolist())) == 1_000 and 0 <= picked[0] < picked[-1] < 1_000_003
    assert np.diff(picked).min() >= 1_000 and np.diff(picked).max() <= 1_001
    assert sets.spread(10**12, 3).tolist() == [166666666666, 500000000000, 833333333333]


def test_the_command_prints_and_draws(config, vocabulary, tmp_path, capsys):
    (tmp_path / "v.model").write_bytes(vocabulary.model_bytes)
    config = builders.with_data(config, vocabulary=str(tmp_path / "v.model"))
    call("stats", config, "--sample=10", f"--html={tmp_path / 'new' / 'stats.html'}")
    said = capsys.readouterr().out
    assert ("records: 30, 10 of them read" in said and "too many pixels" in said) or "not an image" in said
    page = (tmp_path / "new" / "stats.html").read_text()
    assert "caption, characters" in page and page.count("<script") == 1 and "://" not in page
    call("stats", config, "--json", "--split=evaluation")
    values = json.loads(capsys.readouterr().out)
    assert (
        values["tars"]["records"] == 3 and values["tars"]["corrupt"] == {} and values["tars"]["formats"] == {"PNG": 3}
    )


def test_hostile_captions_stay_texts(tmp_path, vocabulary):
    hostile = '"><script>alert(1)</script><img src=x>'
    builders.write_tar(
        tmp_path / "a.tar",
        [member for i in range(3) for member in ((f"k{i}.png", builders.picture(i)), (f"k{i}.txt", hostile.encode()))],
    )
    config = builders.config(format="tars", path=str(tmp_path), holdout=1e-9, name=hostile)
    found = stats.measure(config.data, records.open_records(config.data, "train"), vocabulary, 16)
    stats_report.write(str(tmp_path / "s.html"), config, "train", {hostile: found})
    page = (tmp_path / "s.html").read_text()
    assert page.count("<script") == 1 and "<img" not in page and page.count("&lt;script&gt;") >= 3
