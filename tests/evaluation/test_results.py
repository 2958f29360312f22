"""What an evaluation leaves behind: evaluation.json, captions for servers, a table."""

import copy
import dataclasses
import json

import pytest
from etils import epath

from coca_jax.config import HeadConfig
from coca_jax.evaluation import results
from coca_jax.evaluation.results import results_table, write_results
from coca_jax.evaluation.tasks.base import DatasetResult
from tests.evaluation import tiny_coca


def written(folder, results, **names) -> dict:
    """The values of evaluation.json."""
    folder = epath.Path(folder)
    write_results(folder, tiny_coca.coca(), results, "x", checkpoint="runs/x", **names)
    name = f"evaluation_{names['name']}.json" if names.get("name") else "evaluation.json"
    return json.loads((folder / name).read_text(), parse_constant=pytest.fail)


def test_the_metrics_are_flat_with_the_model_s_identity_and_valid_json(tmp_path):
    metrics = {"a/images": 3, "a/caption_equivalent": 0.5, "a/zero_shot_x": float("nan"), "a/b": float("inf")}
    assert written(tmp_path, [DatasetResult("a", metrics)]) == {
        "a/images": 3,
        "a/caption_equivalent": 0.5,
        "a/zero_shot_x": None,
        "a/b": None,
        "checkpoint": "runs/x",
        "checkpoint_step": 7,
        "checkpoint_digest": tiny_coca.coca().digest,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "report.html"]


@pytest.mark.parametrize("name", ["", "mine"])
def test_datasets_evaluated_one_after_the_other_stay_together_while_the_model_is_the_same(tmp_path, name):
    results = {one: [DatasetResult(one, {f"{one}/images": 3})] for one in "abc"}
    written(tmp_path, results["a"], name=name)
    both = written(tmp_path, results["b"], name=name)
    assert both["a/images"] == both["b/images"] == 3
    file = tmp_path / f"evaluation{name and '_mine'}.json"
    file.write_text(json.dumps({**both, "checkpoint_digest": "another"}))
    assert "a/images" not in written(tmp_path, results["c"], name=name)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'"a"', b"3", b"{}"])
def test_a_damaged_file_is_written_anew(tmp_path, content):
    (tmp_path / "evaluation.json").write_bytes(content)
    assert written(tmp_path, [DatasetResult("a", {"a/images": 3})])["a/images"] == 3


def test_captions_are_the_list_that_the_servers_take(tmp_path):
    captions = {42: "a dog", 7: " Zoë's\n two  cats ", 9: ""}
    written(tmp_path, [DatasetResult("coco", submissions={"captions": captions})])
    assert json.loads((tmp_path / "captions_coco_results.json").read_text(encoding="utf-8")) == [
        {"image_id": 7, "caption": "Zoë's two cats"},
        {"image_id": 9, "caption": ""},
        {"image_id": 42, "caption": "a dog"},
    ]


def test_answers_are_the_list_that_vqa_s_server_takes(tmp_path, caplog):
    answers = {262148000: "yes", 9: " two\n dogs "}
    result = DatasetResult(
        "vqa", unreadable={"not an image": 2}, submissions={"answers": answers, "captions": {1: "x"}}
    )
    written(tmp_path, [result])
    assert json.loads((tmp_path / "answers_vqa_results.json").read_text(encoding="utf-8")) == [
        {"question_id": 9, "answer": "two dogs"},
        {"question_id": 262148000, "answer": "yes"},
    ]
    assert json.loads((tmp_path / "captions_vqa_results.json").read_text()) == [{"image_id": 1, "caption": "x"}]
    assert "answers_vqa_results.json lacks 2 records that could not be read" in caplog.text


def test_the_table_is_for_people():
    metrics = {
        "a/images": 1_200,
        "a/image_to_text_r1": 0.5,
        "a/image_to_text_mean_rank": 1_234.0,
        "a/caption_cider": 1.25,
        "a/zero_shot_x": float("nan"),
    }
    table = results_table([DatasetResult("a", metrics, {"a/image_to_text_r1": 0.001})])
    assert [line.split() for line in table.splitlines()] == [
        ["dataset", "metric", "value", "baseline"],
        ["a", "images", "1,200"],
        ["a", "image_to_text_r1", "50.00", "%", "0.10", "%"],
        ["a", "image_to_text_mean_rank", "1,234.0"],
        ["a", "caption_cider", "1.2500"],
        ["a", "zero_shot_x", "n/a"],
    ]


def test_the_report_names_the_objective_and_the_run_that_it_was_adapted_from():
    coca = tiny_coca.coca()
    head = dataclasses.replace(
        coca.config.objective, name="classification", head=HeadConfig(encoder_learning_rate=1e-5)
    )
    train = dataclasses.replace(coca.config.train, init_from="runs/pretrained")
    adapted = copy.copy(coca)
    adapted.config = dataclasses.replace(coca.config, objective=head, train=train)
    adapted.classes = tuple(f"c{i}" for i in range(20))
    facts = results._facts(adapted)
    assert facts["objective"] == "classification" and facts["adapted from"] == "runs/pretrained"
    assert facts["pretrained parameters"] == "peak learning rate 1e-05"
    assert facts["classes"].startswith("20: c0, c1, ") and facts["classes"].endswith("c11 … c19")
    assert results._facts(coca)["objective"] == "pretraining" and "adapted from" not in results._facts(coca)
