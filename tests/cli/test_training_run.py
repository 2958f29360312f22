"""What a run settles before its first step."""

import dataclasses
import shutil
import types

import jax
import pytest
import tiny
from etils import epath

from coca_jax.cli import training_run as run_setup
from coca_jax.config import DataConfig
from coca_jax.data.pipeline.batches import Pipeline
from coca_jax.data.text.vocabulary import train_vocabulary
from coca_jax.errors import CocaError
from coca_jax.trainer.checkpoint import RunRecord
from coca_jax.trainer.workdir import Claim
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
    monkeypatch.setattr(run_setup, "RunEvaluation", lambda config, classes: (_ for _ in ()).throw(Reached))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    freely = {"path": str(tmp_path / "b"), "max_bad_ratio": 0.5, "long_text": "truncate"}
    for changes in ({}, freely):
        with pytest.raises(Reached):
            prepare(builders.with_data(config, **changes), tmp_path)
    (tmp_path / "b" / "p003.jpg").unlink()
    with pytest.raises(CocaError, match=r"holds a run on other data .*--workdir"):
        prepare(builders.with_data(config, **freely), tmp_path)
    kept.latest_step = lambda: None  # a new run asks for nothing
    (tmp_path / "own.model").write_bytes(vocabulary.model_bytes)
    with pytest.raises(Reached):
        prepare(builders.with_data(config, **freely, vocabulary=str(tmp_path / "own.model")), tmp_path)


@pytest.fixture
def resumed(monkeypatch):
    """A function (config before, at step) that makes `prepare` find a checkpoint of it, and stop behind the checks."""

    def found(config, step=7):
        record = RunRecord(config, b"not a vocabulary", "fingerprint")
        kept = types.SimpleNamespace(latest_step=lambda: step, record=lambda at: record)
        monkeypatch.setattr(run_setup, "Checkpoints", lambda folder, keep: kept)
        monkeypatch.setattr(run_setup, "_vocabulary", lambda config, before: (_ for _ in ()).throw(Reached))

    return found


def _mixture(paths, share=1.0):
    return {
        name: builders.source(format="folder", path=path, share=share if name == "a" else 1.0)
        for name, path in zip("ab", paths, strict=False)
    }


@pytest.mark.parametrize(
    "before, after, key",
    [
        ({"optimizer__name": "adamw"}, {"optimizer__name": "muon"}, "optimizer.name was adamw, now muon"),
        ({}, {"model__text__mlp": 48}, "model.text.mlp was 32, now 48"),
        ({}, {"objective__pretraining__captioning_weight": 1.0}, "objective.pretraining.captioning_weight was 2.0"),
        ({}, {"train__seed": 3}, "train.seed was 0, now 3"),
        ({}, {"train__batch_size": 16}, "train.batch_size was 8, now 16"),
        ({}, {"data__block": 3}, "data.block was 16, now 3"),
    ],
)
def test_a_run_does_not_continue_with_another_model_objective_optimiser_or_data(resumed, tmp_path, before, after, key):
    resumed(tiny.config(**before))
    with pytest.raises(CocaError, match=f"{tmp_path} holds a run with other settings .{key}.*choose another --workdir"):
        prepare(tiny.config(**before | after), tmp_path)


def test_a_run_continues_with_another_schedule_average_length_mesh_and_place(resumed, tmp_path):
    resumed(tiny.config())
    optimizer = dict(optimizer__peak_learning_rate=1e-4, optimizer__ema_decay=0.9, optimizer__clip_norm=1.0)
    train = dict(
        train__steps=50, train__log_every=3, train__mesh__fsdp=2, train__microbatches=1, train__tensorboard=False
    )
    with pytest.raises(Reached):
        prepare(tiny.config(**optimizer, **train, evaluation__examples=3), tmp_path)


def test_in_a_mixture_only_the_places_may_differ(resumed, tmp_path):
    def mixed(mixture):
        return dataclasses.replace(tiny.config(), data=DataConfig(mixture=mixture))

    resumed(mixed(_mixture("xy")))
    with pytest.raises(Reached):
        prepare(mixed(_mixture("pq")), tmp_path)
    with pytest.raises(CocaError, match=r"data.mixture.a.share was 1.0, now 2.0"):
        prepare(mixed(_mixture("xy", share=2.0)), tmp_path)
    with pytest.raises(CocaError, match=r"data.mixture.b"):
        prepare(mixed(_mixture("x")), tmp_path)


@pytest.mark.parametrize("steps, refused", [(6, True), (7, False), (8, False)])
def test_fewer_steps_than_the_folder_has_are_refused(resumed, tmp_path, steps, refused):
    resumed(tiny.config(), step=7)
    with pytest.raises(CocaError if refused else Reached) as caught:
        prepare(tiny.config(train__steps=steps), tmp_path)
    if refused:
        assert "holds a checkpoint at step 7, beyond train.steps = 6: set train.steps to at least 7" in str(
            caught.value
        )
        assert not list(tmp_path.glob("*.json*"))  # nothing is written of a step that is not the model's


def test_a_workdir_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CocaError, match=f"{tmp_path}/run cannot be written .File exists.: "):
        prepare(tiny.config(), tmp_path / "run")


def test_a_second_training_in_a_workdir_is_refused_before_anything_is_opened(tmp_path):
    with Claim(epath.Path(tmp_path)), pytest.raises(CocaError, match="in use by another training"):
        prepare(tiny.config(), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_a_failed_evaluation_leaves_the_results_of_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run_setup, "write_results", lambda *_, **__: pytest.fail("was written"))
    run_setup._evaluate(lambda coca: None, lambda **_: None, epath.Path(tmp_path), None, None, "", 3, None)
