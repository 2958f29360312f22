"""Counts on sets whose every number is known, dirt included."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.tools import common, stats
from tests.data import builders
from tests.tools.commands import call, photo


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.fixture
def config(tmp_path):
    """30 records: 24 clean ones, of which two have the same image and 13 the same caption; 6 of five kinds of dirt."""
    members = []

    def add(key: str, image: bytes, caption: bytes) -> None:
        members.extend([(f"{key}.jpg", image), (f"{key}.txt", caption)])

    for i in range(24):
        image = builders.encoded(photo(i, 60 if i < 20 else 90, 60), "JPEG" if i < 20 else "PNG")
        add(f"clean{i:02}", members[0][1] if i == 1 else image, b"the same words" if i < 13 else f"shade {i}".encode())
    huge = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(huge, "PNG")
    add("html0", b"<html>404</html>", b"a page")
    add("html1", b"<html>404</html>", b"another page")
    add("cut", truncated(builders.encoded(photo(50), "JPEG")), b"half an image")
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


def measured(config, vocabulary):
    dataset = config.data.dataset
    return stats.measure("name", dataset, records.open_records(dataset, "train"), vocabulary, config)


def test_counts(config, vocabulary):
    store = records.open_records(config.data.dataset, "train")
    result = stats.measure("tars", config.data.dataset, store, vocabulary, config, workers=2)
    assert (result["records"], result["read"], result["usable"], result["captions"]) == (30, 30, 24, 24)
    assert list(result["lost"].values()) == [1]  # an image without text
    assert result["corrupt"] == {
        "not an image": 2,
        "damaged image": 1,
        "too many pixels": 1,
        "empty caption": 1,
        "caption is not UTF-8": 1,
    }
    assert [name.rpartition(":")[2] for name in result["corrupt_names"]["not an image"]] == ["html0", "html1"]
    assert result["formats"] == {"JPEG": 20, "PNG": 4}
    width, height, characters, tokens = (
        result["spreads"][key]
        for key in ("width, pixels", "height, pixels", "caption, characters", "caption, tokens with BOS and EOS")
    )
    assert [width[key] for key in ("min", "median", "p95", "max", "mean")] == [60, 60, 90, 90, 65]
    assert sum(width["histogram"]["counts"]) == 24 and width["histogram"]["counts"][0] == 20
    assert (height["min"], height["max"], characters["max"]) == (60, 60, len("the same words"))
    aspect = result["spreads"]["width by height, %"]
    assert [aspect[key] for key in ("min", "median", "max", "mean")] == [
        100,
        100,
        150,
        pytest.approx(650 / 6, abs=1e-3),
    ]
    assert result["identical_images"] == 1
    assert result["repeated_captions"] == 12 and result["most_frequent_captions"] == {"the same words": 13}
    ids = vocabulary.encode(["the same words"] * 13 + [f"shade {i}" for i in range(13, 24)], 32)
    lengths = (ids != vocabulary.pad_id).sum(1)
    assert tokens["mean"] == pytest.approx(lengths.mean(), abs=1e-3) and tokens["max"] == lengths.max()
    assert result["tokens_that_the_model_reads"] == 8
    assert result["captions_with_more_tokens"] == (lengths > 8).sum() > 0


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
    result = measured(config, vocabulary)
    spread = result["spreads"]["captions an image"]
    assert (result["captions"], spread["min"], spread["max"]) == (9, 1, 2)
    assert result["most_frequent_captions"] == {"one": 6, "two": 3}
    labelled = builders.with_data(
        config, label_field="kind", class_names=str(tmp_path / "kinds.txt"), prompts=("a {}",)
    )
    assert measured(labelled, vocabulary)["most_frequent_captions"] == {"a cat": 2, "a dog": 2, "a emu": 2}


def test_the_sample_is_evenly_spread_and_always_the_same():
    assert list(common.evenly_spread(10, 0)) == list(common.evenly_spread(10, 10)) == list(range(10))
    picked = common.evenly_spread(1_000_003, 1_000)
    assert len(set(picked)) == 1_000 and 0 <= picked[0] < picked[-1] < 1_000_003
    assert np.diff(picked).min() >= 1_000 and np.diff(picked).max() <= 1_001
    assert common.evenly_spread(10**12, 3) == [166666666666, 500000000000, 833333333333]


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
    stats.write_report(str(tmp_path / "s.html"), hostile, "train", {hostile: measured(config, vocabulary)})
    page = (tmp_path / "s.html").read_text()
    assert page.count("<script") == 1 and "<img" not in page and page.count("&lt;script&gt;") >= 3
