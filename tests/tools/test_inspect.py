"""The page shows the very batch: its pixels, its ids, where its rows come from."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.records import open as records
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.tools import inspect
from tests import browser
from tests.data import builders
from tests.tools.commands import call


@pytest.fixture
def config(tmp_path):
    """Two sets; a record of one is broken, and no text of the other fits."""
    members = builders.members(range(40, 52))
    members[0] = (members[0][0], b"<html>")
    builders.write_tar(tmp_path / "a.tar", members)
    (tmp_path / "words").mkdir()
    for i in range(100, 110):
        (tmp_path / "words" / f"w{i}.png").write_bytes(builders.picture(i))
        (tmp_path / "words" / f"w{i}.txt").write_text(f"<b>shade</b> {i} " * 6)
    mixture = {
        "own": builders.source(format="folder", path=str(tmp_path / "words"), holdout=1e-9),
        "web": builders.source(format="tars", path=str(tmp_path), holdout=1e-9, crop="random", share=3.0),
    }
    return builders.config(batch_size=16, length=12, mixture=mixture, long_text="truncate", max_bad_ratio=0.5)


@pytest.fixture(scope="module")
def vocabulary():
    return train_vocabulary([f"shade {i} <b></b>" for i in range(120)], 64)


def images(page: str) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'<img[^>]*src="data:image/png;base64,([^"]*)"', page)
    ]


def test_the_page_is_the_batch(config, vocabulary, tmp_path):
    summary = inspect.write_samples(str(tmp_path / "look.html"), config, vocabulary, step=3, count=16)
    page = (tmp_path / "look.html").read_text()
    batch = Pipeline(config, vocabulary).batch(3)
    shown = images(page)
    for row, image in enumerate(batch["image"]):
        np.testing.assert_array_equal(shown[2 * row], image)  # as it is, then enlarged
        np.testing.assert_array_equal(shown[2 * row + 1], image)
    pieces = [
        re.findall(r"<span[^>]*>([^<]*)<small>(\d+)</small>", part)
        for part in re.findall(r'"tokens">(.*?)</div>', page)
    ]
    for ids, row in zip(batch["text"].tolist(), pieces, strict=True):
        spread = [
            int(number) for piece, number in row for _ in range(int((re.findall(r", (\d+) times", piece) or [1])[0]))
        ]
        assert spread == ids
        assert html.unescape(row[0][0]) == vocabulary.piece(vocabulary.bos_id)
    sources = re.findall(r">Source</th><td>(\w+)</td>", page)
    assert sources == [("own", "web")[number] for number in batch["source"]] and sources.count("own") == 4
    assert page.count('class="warning"') == 4  # the long texts were cut, and are shown whole
    assert page.count("&lt;b&gt;shade&lt;/b&gt; ") >= 4 * 6 and "4 of own, 12 of web" in summary
    named = re.findall(r">Record</th><td>([^<]*)</td>", page)
    for record, image, source in zip(named, batch["image"], sources, strict=True):
        assert int(re.findall(r"(\d+)(?:\.png)?$", record)[0]) == image[8, 8, 0] and (source == "web") == (
            ".tar:" in record
        )
    assert page.count("<script") == 1 and "://" not in page and "<b>" not in page


def test_some_rows_of_a_large_batch_and_the_evaluation(config, vocabulary, tmp_path, capsys):
    (tmp_path / "v.model").write_bytes(vocabulary.model_bytes)
    config = builders.with_data(
        config, mixture={}, format="tars", path=str(tmp_path), holdout=0.5, vocabulary=str(tmp_path / "v.model")
    )
    call("inspect", config, f"--output={tmp_path / 'l.html'}", "--count=4", "--split=evaluation")
    page = (tmp_path / "l.html").read_text()
    assert len(images(page)) == 8 and "4 of the 16 rows of step 0, split evaluation" in capsys.readouterr().out
    assert [int(row) for row in re.findall(r"row (\d+) of step", page)] == [2, 6, 10, 14]
    store = records.open_records(config.data.dataset, "evaluation")
    held = {store.name(i) for i in range(len(store))}
    assert 0 < len(held) < 12 and set(re.findall(r">Record</th><td>([^<]*)</td>", page)) <= held


def test_every_piece_is_shown_and_pads_are_counted(vocabulary):
    ids = np.array([vocabulary.bos_id, 20, 20, 21, vocabulary.eos_id, *[vocabulary.pad_id] * 3])
    pieces = inspect._pieces(vocabulary, ids)
    assert [token for _, token, _ in pieces] == ids[:6].tolist()
    assert [special for _, _, special in pieces] == [True, False, False, False, True, True]
    assert pieces[1] == pieces[2] == (vocabulary.piece(20), 20, False) and pieces[5][0].endswith(", 3 times")


def test_digit_scenes_and_clips_are_shown(vocabulary, tmp_path):
    from coca_jax.data.text import corpus

    scenes = builders.config()
    own = train_vocabulary(corpus.training_captions(scenes), 512)
    inspect.write_samples(str(tmp_path / "s.html"), scenes, own, count=2)
    assert re.search("scene [0-9]+ of train", (tmp_path / "s.html").read_text())
    frames = np.stack([np.full((16, 16, 3), 60 * number, np.uint8) for number in range(3)])
    np.testing.assert_array_equal(np.stack([block.image for block in inspect._views(frames, "a clip")]), frames)


@pytest.mark.browser
def test_the_page_opens_in_a_browser(config, vocabulary, tmp_path):
    inspect.write_samples(str(tmp_path / "look.html"), config, vocabulary, count=4)
    (tmp_path / "browser").mkdir()
    page = browser.open_page(tmp_path / "look.html", tmp_path / "browser", width=500)
    assert page.images == 8 and page.missing_images == 0 and page.unnamed_images == 0 and page.overflow <= 0
