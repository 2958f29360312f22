import dataclasses
import json
import re

import pytest

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.suite import EvaluationResult, evaluate
from tests.browser import open_page
from tests.data import builders
from tests.evaluation.fakes import FakeCoca, digit_set

HOSTILE = '"><script>document.title="owned"</script></script><img src=x onerror=alert(1)>\'&$title {0} \u2028'


def _history(rows: int = 500) -> list[dict]:
    steps = [10 * (i + 1) for i in range(rows)]
    return [
        {
            "step": s,
            "loss": 15 / s,
            "contrastive_loss": 5 / s,
            "captioning_loss": 5 / s,
            "pairs_per_second": 900.0 + s % 7,
            "data_wait": 0.02,
            "temperature": 0.07,
            "learning_rate": 1e-3 * (1 - s / (10 * rows)),
            "note": "text",
        }
        for s in steps
    ]


def _hostile_set():
    """A set whose every text tries to leave its place in the page."""
    held_out = digit_set(images=40)
    task = held_out.classifications[0]
    return dataclasses.replace(
        held_out,
        name=f"squares{HOSTILE}",
        captions=[(own[0] + HOSTILE,) for own in held_out.captions],
        meaning=lambda text: text[:6],
        classifications=[dataclasses.replace(task, name=f"digit{HOSTILE}", labels=[n + HOSTILE for n in task.labels])],
        sentences=[HOSTILE],
    )


def _assert_clean(page, images: int):
    assert page.errors == "[]" and not page.console
    assert page.missing_images == page.unnamed_images == 0
    assert page.images >= images
    assert page.overflow <= 0  # no sideways scrolling


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 500])
def test_the_report_opens_in_a_browser(tmp_path, width):
    held_out = digit_set()
    result = evaluate(FakeCoca(held_out, wrong_every=3), held_out, gallery=24)
    path = tmp_path / "report.html"
    history = [row | {"squares/image_to_text_r1": row["step"] / 5000} for row in _history()]
    write_report(path, title="A run", results=[result], history=history, info={"Parameters": "1,234"})
    assert path.stat().st_size < 1_000_000
    page = open_page(path, tmp_path, width)
    _assert_clean(page, images=24 + 6 + 2 * 8)
    for words in ("66.7%", "chance 10.0%", "60 held-out images", "✓ right", "✗ wrong", "Confusion matrix"):
        assert words in page.dom.replace("<small>%</small>", "%"), words
    assert page.dom.count("<polyline") >= 8


@pytest.mark.browser
def test_a_key_reads_a_value_from_a_chart(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, title="x", results=[], history=_history(4), info={})
    press = 'document.querySelector(".plot").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}))'
    script = f"<script>addEventListener('load', () => {press})</script>"  # before the policy that forbids it
    path.write_text(path.read_text(encoding="utf-8").replace("<head>", f"<head>{script}"), encoding="utf-8")
    reading = re.search(r'<output class="reading"[^>]*>(.*?)</output>', open_page(path, tmp_path).dom, re.DOTALL)[1]
    assert reading.splitlines() == ["step 40", "contrastive  0.125", "captioning  0.125", "weighted sum  0.375"]


@pytest.mark.browser
def test_hostile_texts_stay_texts(tmp_path):
    held_out = _hostile_set()
    result = evaluate(FakeCoca(held_out, wrong_every=3), held_out)
    path = tmp_path / "report.html"
    history = [row | {f"{held_out.name}/image_to_text_r1": 0.5} for row in _history(20)]
    write_report(path, title=HOSTILE, results=[result], history=history, info={HOSTILE: HOSTILE})
    source = path.read_text(encoding="utf-8")
    assert source.count("<script") == source.count("</script>") == 1 + source.count("<figure")
    assert "onerror=alert" in source and "<img src=x" not in source
    page = open_page(path, tmp_path)
    _assert_clean(page, images=24)
    assert 'owned"&lt;/script' in re.search("<title>(.*?)</title>", page.dom, re.DOTALL)[1]


@pytest.mark.browser
def test_1636_classes_without_captions(tmp_path):
    held_out = digit_set(images=1636, classes=1636)
    result = evaluate(FakeCoca(held_out, wrong_every=5, can_caption=False), held_out)
    path = tmp_path / "report.html"
    write_report(path, title="Many names", results=[result], history=_history(3), info={})
    assert path.stat().st_size < 1_000_000
    page = open_page(path, tmp_path)
    _assert_clean(page, images=24)
    assert "1,636 classes" in page.dom and "generated" not in page.dom


@pytest.mark.parametrize("history", [[], [{"step": 1}], [{"step": 5, "loss": float("nan")}], [{"loss": 1.0}]])
def test_a_report_of_nothing_is_still_a_page(tmp_path, history):
    path = tmp_path / "report.html"
    write_report(path, title="Empty", results=[EvaluationResult("nothing", {}, {})], history=history, info={})
    assert "<h1>Empty</h1>" in path.read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    held_out = digit_set()
    result = evaluate(FakeCoca(held_out), held_out)
    write_report(tmp_path / "report.html", title="x", results=[result], history=_history(), info={})
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?([^"')\s>]+)""", source)
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "default-src 'none'" in source


def test_of_two_rows_of_a_step_the_later_counts(tmp_path):
    rows = [
        {"step": 1, "loss": 9.0},
        {"step": 2, "loss": 8.0},
        {"step": 3, "loss": 7.0},
        {"step": 2, "loss": 5.0},
        {"step": 3, "loss": 4.0},
    ]
    write_report(tmp_path / "report.html", title="x", results=[], history=rows, info={})
    chart = json.loads(re.search(r'application/json">(.*?)</script>', (tmp_path / "report.html").read_text())[1])
    assert chart["step"] == ["1", "2", "3"] and chart["lines"][0]["text"] == ["9", "5", "4"]


@pytest.mark.parametrize("images, listed", [(10, False), (20, True)])
def test_classes_of_one_picture_each_are_not_listed(images, listed, tmp_path):
    held_out = dataclasses.replace(digit_set(images), asked=EvaluationDatasetConfig(tasks=("classification",)))
    result = evaluate(FakeCoca(held_out, wrong_every=3), held_out, gallery=0)
    write_report(tmp_path / "x.html", title="x", results=[result], history=[], info={})
    assert ("Class by class" in (tmp_path / "x.html").read_text()) == listed


@pytest.mark.browser
def test_a_set_by_name_shows_classes_caption_scores_and_what_was_lost(tmp_path):
    held_out = dataclasses.replace(
        digit_set(),
        asked=builders.evaluation_dataset(tasks=("retrieval", "classification", "captioning"), scores=("bleu",)),
        unreadable={"not an image": 2},
    )
    result = evaluate(FakeCoca(held_out, wrong_every=3), held_out, gallery=6)
    result = dataclasses.replace(result, notes=["METEOR needs <Java>"])
    path = tmp_path / "report.html"
    write_report(path, title="A set", results=[result], history=[], info={})
    page = open_page(path, tmp_path)
    _assert_clean(page, images=6)
    for words in (
        "BLEU-4",
        "Class by class: all classes",
        "Records that could not be used: 2 not an image",
        "METEOR needs &lt;Java&gt;",
        "digit, mean of the classes: 66.7%",
    ):
        assert words in page.dom, words
