"""A run whose images are stored tokens: trained, evaluated and used through the commands."""

import numpy as np
import pytest
import running

import coca_jax
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.errors import CocaError
from tests.data import builders

TOKENS, WIDTH = 5, 32


def tokens(index: int, dtype=np.float16) -> np.ndarray:
    return np.random.default_rng(index).normal(size=(TOKENS, WIDTH)).astype(dtype)


def write(path, kind: str) -> None:
    """20 records, one of them of another shape."""
    files = []
    for i in range(20):
        array = tokens(i, np.float32 if i % 2 else np.float16) if i != 7 else np.zeros((TOKENS, 3), np.float32)
        files += [(f"{i:03}.npy", builders.npy(array)), (f"{i:03}.txt", digit_scenes.scene(i).caption.encode())]
    path.mkdir()
    if kind == "tars":
        builders.write_tar(path / "a.tar", files)
    else:
        for name, data in files:
            (path / name).write_bytes(data)


CONFIG = """
from coca_jax.config import source
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.model.image.update(kind="precomputed", tokens={tokens})
    config.data.max_bad_ratio = 0.2
    config.data.mixture = {{
        kind: source(dataset=dict(format=kind, path="{folder}/" + kind)) for kind in ("tars", "folder")
    }}
    return config
"""


@pytest.mark.slow
def test_stored_tokens_of_tars_and_folders_train_are_evaluated_and_embedded(tmp_path):
    for kind in ("tars", "folder"):
        write(tmp_path / kind, kind)
    (tmp_path / "config.py").write_text(CONFIG.format(tokens=TOKENS, folder=tmp_path))
    run = tmp_path / "run"
    status, _, err = running.call(
        running.train_command(run, "--config.train.steps=3", config=str(tmp_path / "config.py"))
    )
    assert status == 0, err
    steps = [row for row in running.rows(run) if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3] and all(np.isfinite(row["loss"]) for row in steps)
    assert "stored tokens of shape (5, 3), the model takes (5, 32)" in err and "007" in err
    figures = (run / "evaluation.json").read_text()
    assert "tars/image_to_text_r1" in figures and "folder/image_to_text_r1" in figures

    coca = coca_jax.load(run)
    paths = [tmp_path / "folder" / "000.npy", tmp_path / "folder" / "001.npy"]
    stacked = np.stack([tokens(0), tokens(1, np.float32)]).astype(np.float32)
    embedded = coca.embed_images(paths)
    for form in ([str(path) for path in paths], [path.read_bytes() for path in paths], list(stacked), stacked):
        np.testing.assert_allclose(coca.embed_images(form), embedded, atol=1e-6)
    for pixels in ([np.zeros((8, 8, 3), np.uint8)], np.zeros((2, 40, 40, 3), np.uint8)):
        with pytest.raises(CocaError, match=r"takes stored tokens, float \(5, 32\)"):
            coca.embed_images(pixels)
