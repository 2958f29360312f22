"""A run whose images are stored tokens: trained, evaluated and used through the commands."""

import json

import numpy as np
import pytest
import running

import coca_jax
from coca_jax.data.digit_scenes import scenes as digit_scenes
from tests.data import builders

TOKENS, WIDTH = 5, 32


def tokens(index: int, dtype=np.float16) -> np.ndarray:
    return np.random.default_rng(index).normal(size=(TOKENS, WIDTH)).astype(dtype)


def write(path, kind: str) -> None:
    """40 records, one of them of another shape."""
    files = []
    for i in range(40):
        array = tokens(i, np.float32 if i % 2 else np.float16) if i != 7 else np.zeros((TOKENS, 3), np.float32)
        files += [(f"{i:03}.npy", builders.npy(array)), (f"{i:03}.txt", digit_scenes.scene(i).caption.encode())]
    path.mkdir()
    if kind == "tars":
        builders.write_tar(path / "a.tar", files)
    else:
        for name, data in files:
            (path / name).write_bytes(data)


@pytest.mark.parametrize("kind", ["tars", "folder"])
def test_stored_tokens_train_are_evaluated_and_captioned(tmp_path, kind):
    write(tmp_path / "data", kind)
    flags = (
        f"--config.data.dataset.format={kind}",
        f"--config.data.dataset.path={tmp_path / 'data'}",
        "--config.data.max_bad_ratio=0.2",
        "--config.model.image.kind=precomputed",
        f"--config.model.image.tokens={TOKENS}",
        "--config.train.steps=3",
    )
    status, _, err = running.call(running.train_command(tmp_path / "run", *flags))
    assert status == 0, err
    steps = [row for row in running.rows(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3] and all(np.isfinite(row["loss"]) for row in steps)
    assert "stored tokens of shape (5, 3), the model takes (5, 32)" in err and "007" in err
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert any("image_to_text_r1" in key for key in json.dumps(figures).replace('"', " ").split())
    if kind == "tars":
        return
    coca = coca_jax.load(tmp_path / "run")
    paths = [tmp_path / "data" / "000.npy", str(tmp_path / "data" / "001.npy")]
    stacked = np.stack([tokens(0), tokens(1, np.float32)]).astype(np.float32)
    embedded = coca.embed_images(paths)
    for form in ([path.read_bytes() for path in map(type(paths[0]), paths)], list(stacked), stacked):
        np.testing.assert_allclose(coca.embed_images(form), embedded, atol=1e-6)
    with pytest.raises(coca_jax.errors.CocaError, match=r"takes stored tokens, float \(5, 32\)"):
        coca.embed_images([np.zeros((8, 8, 3), np.uint8)])
    status, out, err = running.call(running.command("caption", f"--checkpoint={tmp_path / 'run'}", *paths))
    assert status == 0 and out.count("\t") == 2, err
