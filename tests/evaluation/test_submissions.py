import json

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.submissions import write_captions


def test_captions_are_the_list_that_the_servers_take(tmp_path):
    path = tmp_path / "captions_val_coca_results.json"
    write_captions(path, {42: "a dog", np.int64(7): " Zoë's\n two  cats ", 9: ""})
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"image_id": 7, "caption": "Zoë's two cats"},
        {"image_id": 9, "caption": ""},
        {"image_id": 42, "caption": "a dog"},
    ]


def test_a_file_without_captions_is_not_written(tmp_path):
    with pytest.raises(CocaError, match="no captions to write"):
        write_captions(tmp_path / "results.json", {})
    assert not list(tmp_path.iterdir())
