import json

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions import result_files
from coca_jax.evaluation.metrics.captions.result_files import read_references, read_results, write_results


def test_results_are_the_list_that_the_servers_take(tmp_path):
    path = tmp_path / "captions_val_coca_results.json"
    write_results(path, {42: "a dog", np.int64(7): " Zoë's\n two  cats ", 9: ""}, image_ids=[7, 9, 42])
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"image_id": 7, "caption": "Zoë's two cats"},
        {"image_id": 9, "caption": ""},
        {"image_id": 42, "caption": "a dog"},
    ]
    assert read_results(path) == {7: "Zoë's two cats", 9: "", 42: "a dog"}


@pytest.mark.parametrize(
    "captions, image_ids, sentence",
    [
        ({}, None, "no captions to write"),
        ({1: "a"}, [1, 2, 3], "2 images have no caption, 2 the first"),
        ({1: "a", 5: "b"}, [1], "1 captions are of images outside the split, 5 the first"),
        ({"emoji/1f415": "a"}, None, "image id 'emoji/1f415' is no integer"),
        ({1.0: "a"}, None, "no integer"),
        ({True: "a"}, None, "no integer"),
    ],
)
def test_what_a_server_would_refuse_is_not_written(tmp_path, captions, image_ids, sentence):
    with pytest.raises(CocaError, match=sentence):
        write_results(tmp_path / "results.json", captions, image_ids)
    assert not list(tmp_path.iterdir())


def test_a_file_that_reads_back_differently_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(result_files, "write_atomically", lambda path, text: path.write_text(text.replace("dog", "d")))
    with pytest.raises(CocaError, match="does not read back"):
        write_results(tmp_path / "results.json", {1: "a dog"})


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('{"1": "a dog"}', "COCO's results format"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": "2", "caption": "b"}]', "see its entry 1"),
        ('[{"image_id": 1}]', "see its entry 0"),
        ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]', "two captions for image 1"),
        ("[", "is not JSON"),
        (None, "there is no"),
    ],
)
def test_other_files_are_no_results(tmp_path, text, sentence):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CocaError, match=sentence):
        read_results(path)


def test_references_are_collected_image_by_image(tmp_path):
    path = tmp_path / "annotations.json"
    rows = [(2, "a dog"), (1, "a cat"), (2, "one dog")]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(rows)]
    path.write_text(json.dumps({"images": [{"id": 1}, {"id": 2}], "annotations": annotations}))
    assert read_references(path) == {2: ["a dog", "one dog"], 1: ["a cat"]}


@pytest.mark.parametrize(
    "content, sentence",
    [
        ({"images": []}, 'no list of "annotations"'),
        ({"annotations": []}, 'no list of "annotations"'),
        ([], 'no list of "annotations"'),
        ({"annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}, 'annotation 0 of .* lacks "image_id" or "caption"'),
    ],
)
def test_other_files_are_no_references(tmp_path, content, sentence):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CocaError, match=sentence):
        read_references(path)
