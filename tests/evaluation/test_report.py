import dataclasses
import json
import re

import pytest

from coca_jax.evaluation.report import write_report
from coca_jax.evaluation.tasks.base import DatasetResult
from tests.browser import open_page
from tests.data import builders
from tests.evaluation.fakes import FakeCoca, digit_dataset, evaluate, with_tasks

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


def _hostile_dataset():
    """A dataset whose every text tries to leave its place in the page."""
    dataset = digit_dataset(images=40)
    task = dataset.classifications[0]
    return dataclasses.replace(
        dataset,
        name=f"squares{HOSTILE}",
        captions=[(own[0] + HOSTILE,) for own in dataset.captions],
        grammar=lambda text: text[:6],
        classifications=[dataclasses.replace(task, name=f"digit{HOSTILE}", labels=[n + HOSTILE for n in task.labels])],
        queries=[HOSTILE],
    )


def _assert_clean(page, images: int):
    assert page.errors == "[]" and not page.console
    assert page.missing_images == page.unnamed_images == 0
    assert page.images >= images
    assert page.overflow <= 0  # no sideways scrolling


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 500])
def test_the_report_opens_in_a_browser(tmp_path, width):
    dataset = digit_dataset()
    result = evaluate(FakeCoca(dataset, wrong_every=3), dataset, gallery=24)
    path = tmp_path / "report.html"
    history = [row | {"squares/image_to_text_r1": row["step"] / 5000} for row in _history()]
    write_report(path, title="A run", results=[result], history=history, facts={"Parameters": "1,234"})
    assert path.stat().st_size < 1_000_000
    page = open_page(path, tmp_path, width)
    _assert_clean(page, images=24 + 6 + 2 * 8)
    for words in ("66.7%", "chance 10.0%", "60 held-out images", "✓ right", "✗ wrong", "Confusion matrix"):
        assert words in page.dom.replace("<small>%</small>", "%"), words
    assert page.dom.count("<polyline") >= 8


@pytest.mark.browser
def test_a_key_reads_a_value_from_a_chart(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, title="x", results=[], history=_history(4), facts={})
    press = 'document.querySelector(".plot").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}))'
    script = f"<script>addEventListener('load', () => {press})</script>"  # before the policy that forbids it
    path.write_text(path.read_text(encoding="utf-8").replace("<head>", f"<head>{script}"), encoding="utf-8")
    reading = re.search(r'<output class="reading"[^>]*>(.*?)</output>', open_page(path, tmp_path).dom, re.DOTALL)[1]
    assert reading.splitlines() == ["step 40", "contrastive  0.125", "captioning  0.125", "weighted sum  0.375"]


@pytest.mark.browser
def test_hostile_texts_stay_texts(tmp_path):
    dataset = _hostile_dataset()
    result = evaluate(FakeCoca(dataset, wrong_every=3), dataset)
    path = tmp_path / "report.html"
    history = [row | {f"{dataset.name}/image_to_text_r1": 0.5} for row in _history(20)]
    write_report(path, title=HOSTILE, results=[result], history=history, facts={HOSTILE: HOSTILE})
    source = path.read_text(encoding="utf-8")
    assert source.count("<script") == source.count("</script>") == 1 + source.count("<figure")
    assert "onerror=alert" in source and "<img src=x" not in source
    page = open_page(path, tmp_path)
    _assert_clean(page, images=24)
    assert 'owned"&lt;/script' in re.search("<title>(.*?)</title>", page.dom, re.DOTALL)[1]


@pytest.mark.browser
def test_1636_classes_without_captions(tmp_path):
    dataset = digit_dataset(images=1636, classes=1636)
    result = evaluate(FakeCoca(dataset, wrong_every=5, can_caption=False), dataset)
    path = tmp_path / "report.html"
    write_report(path, title="Many names", results=[result], history=_history(3), facts={})
    assert path.stat().st_size < 1_000_000
    page = open_page(path, tmp_path)
    _assert_clean(page, images=24)
    assert "1,636 classes" in page.dom and "generated" not in page.dom


@pytest.mark.parametrize("history", [[], [{"step": 1}], [{"step": 5, "loss": float("nan")}], [{"loss": 1.0}]])
def test_a_report_of_nothing_is_still_a_page(tmp_path, history):
    path = tmp_path / "report.html"
    write_report(path, title="Empty", results=[DatasetResult("nothing")], history=history, facts={})
    assert "<h1>Empty</h1>" in path.read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    dataset = digit_dataset()
    result = evaluate(FakeCoca(dataset), dataset)
    write_report(tmp_path / "report.html", title="x", results=[result], history=_history(), facts={})
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
    write_report(tmp_path / "report.html", title="x", results=[], history=rows, facts={})
    chart = json.loads(re.search(r'application/json">(.*?)</script>', (tmp_path / "report.html").read_text())[1])
    assert chart["step"] == ["1", "2", "3"] and chart["lines"][0]["text"] == ["9", "5", "4"]


@pytest.mark.parametrize("images, listed", [(10, False), (20, True)])
def test_classes_of_one_picture_each_are_not_listed(images, listed, tmp_path):
    dataset = digit_dataset(images, config=with_tasks("classification"))
    result = evaluate(FakeCoca(dataset, wrong_every=3), dataset, gallery=0)
    write_report(tmp_path / "x.html", title="x", results=[result], history=[], facts={})
    assert ("Class by class" in (tmp_path / "x.html").read_text()) == listed


@pytest.mark.browser
def test_a_dataset_by_name_shows_classes_caption_scores_and_what_was_lost(tmp_path):
    dataset = dataclasses.replace(
        digit_dataset(),
        config=builders.evaluation_dataset(tasks=("retrieval", "classification", "captioning"), scores=("bleu",)),
        unreadable={"not an image": 2},
        classifications=[dataclasses.replace(digit_dataset().classifications[0], name="<digit>")],
    )
    result = evaluate(FakeCoca(dataset, wrong_every=3), dataset, gallery=6)
    path = tmp_path / "report.html"
    write_report(path, title="A set", results=[result], history=[], facts={})
    page = open_page(path, tmp_path)
    _assert_clean(page, images=6)
    for words in (
        "BLEU-4",
        "Class by class: all classes",
        "Records that could not be used: 2 not an image",
        "&lt;digit&gt;, zero-shot",
        "mean of the classes: 66.7%",
    ):
        assert words in page.dom, words


def test_a_head_s_metrics_while_training_are_drawn(tmp_path):
    history = [{"step": step, "things/accuracy": step / 10, "things/vqa_accuracy_in_words": 0.5} for step in (1, 2)]
    write_report(tmp_path / "x.html", title="x", results=[DatasetResult("things")], history=history, facts={})
    page = (tmp_path / "x.html").read_text()
    assert (
        "Evaluations while training: things" in page
        and "VQA accuracy in words" in page
        and ">accuracy <b>20.0%" in page
    )
