"""What a run settles before its first step."""

import shutil
import types

import jax
import pytest
from etils import epath

from coca_jax.cli import training_run as run_setup
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.trainer.checkpoint import RunRecord
from tests.data import builders


@pytest.mark.parametrize(
    "backend, chosen, expected",
    [
        ("tpu", None, "compiled"),
        ("gpu", None, "compiled"),
        ("cpu", None, None),
        ("tpu", "elsewhere", "elsewhere"),
    ],
)
def test_restarts_find_what_was_compiled_unless_it_may_not_fit_their_machine(
    monkeypatch, tmp_path, backend, chosen, expected
):
    before = jax.config.jax_compilation_cache_dir

    def path(name):
        return name and str(tmp_path / name)

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    try:
        jax.config.update("jax_compilation_cache_dir", path(chosen))
        run_setup._keep_compiled(epath.Path(tmp_path))
        assert jax.config.jax_compilation_cache_dir == path(expected)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


class Reached(Exception):
    """What lies behind the checks."""


def prepare(config, folder):
    with run_setup.prepared(config, epath.Path(folder), stop=None):
        pass


def test_a_run_continues_on_its_own_data_alone(monkeypatch, tmp_path):
    builders.write_folder(tmp_path / "a", range(20))
    config = builders.config(format="folder", path=str(tmp_path / "a"), holdout=0.1)
    vocabulary = train_vocabulary((f"shade {i}" for i in range(256)), 512)
    record = RunRecord(config, vocabulary.model_bytes, Pipeline(config, vocabulary).fingerprint)
    kept = types.SimpleNamespace(latest_step=lambda: 7, record=lambda step: record)
    monkeypatch.setattr(run_setup, "Checkpoints", lambda folder, keep: kept)
    monkeypatch.setattr(run_setup, "RunEvaluation", lambda config: (_ for _ in ()).throw(Reached))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    freely = {"path": str(tmp_path / "b"), "max_bad_ratio": 0.5, "long_text": "truncate"}
    for changes in ({}, freely):
        with pytest.raises(Reached):
            prepare(builders.with_data(config, **changes), tmp_path)
    (tmp_path / "b" / "p003.jpg").unlink()
    with pytest.raises(CocaError, match="holds a run on other data .*--workdir"):
        prepare(builders.with_data(config, **freely), tmp_path)
    kept.latest_step = lambda: None  # a new run asks for nothing
    (tmp_path / "own.model").write_bytes(vocabulary.model_bytes)
    with pytest.raises(Reached):
        prepare(builders.with_data(config, **freely, vocabulary=str(tmp_path / "own.model")), tmp_path)


@pytest.mark.parametrize(
    "data, key",
    [
        ({"frames": 4}, "data.dataset.frames"),
        ({"mixture": {"signs": builders.source(format="folder", frames=4)}}, "data.mixture.signs.dataset.frames"),
    ],
)
def test_pretraining_on_clips_is_refused_before_anything_is_read(tmp_path, data, key):
    with pytest.raises(CocaError, match=f"{key} = 4 makes clips, which pretraining cannot read: set it to 0"):
        prepare(builders.config(**{"format": "folder", "path": "nowhere", **data}), tmp_path)
