import json
import os

import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.results import read_evaluation, results_table, write_evaluation
from coca_jax.evaluation.tasks.base import DatasetResult
from coca_jax.storage.files import write_atomically


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"squares/caption_equivalent": 0.5, "checkpoint_step": 700, "config": "x"})
    assert read_evaluation(path) == {"squares/caption_equivalent": 0.5, "checkpoint_step": 700, "config": "x"}
    assert os.listdir(tmp_path) == ["evaluation.json"]


def test_a_number_that_is_none_is_valid_json(tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"a": float("nan"), "b": float("inf")})
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read_evaluation(path) == {"a": None, "b": None}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "a lone surrogate: \ud800")
    assert read_evaluation(path) == {"a": 1} and os.listdir(tmp_path) == ["evaluation.json"]


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe", b"[1]", b'{"a": {"b": 1}}'])
def test_anything_else_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CocaError, match="evaluat"):
        read_evaluation(path)


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
