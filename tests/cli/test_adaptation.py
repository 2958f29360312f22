"""Adaptations from their command on: what they take from the pretrained run and the data, and what is loaded of them."""

import json

import jax
import numpy as np
import pytest
import running
import tiny
import tiny_tasks

import coca_jax
from coca_jax.cli import training_run
from coca_jax.config import MeshConfig
from coca_jax.distributed.mesh import make_mesh
from coca_jax.errors import CocaError
from coca_jax.objectives.base import by_name
from coca_jax.storage.files import as_path
from coca_jax.trainer import preemption, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord
from tests.data import builders

TIMES = {"pairs_per_second", "pairs_per_second_per_chip", "data_wait"}
STEPS = 7


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> str:
    """The folder of a pretraining run, saved at step 3 with random parameters."""
    folder, vocabulary = tmp_path_factory.mktemp("pretrained"), tiny_tasks.vocabulary()
    config = tiny.config(model__text__vocabulary_size=vocabulary.size, model__text__length=12)
    mesh = make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        state = train_step.build(config, mesh, vocabulary.pad_id).init()
        checkpoints = Checkpoints(as_path(folder), keep=1)
        checkpoints.save(state, 3, RunRecord(config, vocabulary.model_bytes, "fingerprint"))
        checkpoints.close()
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    return tiny_tasks.write_labelled(tmp_path_factory.mktemp("images") / "own", 25)


def _config(images: str, pretrained: str, **changes):
    """A classification of the images, whose model is the pretrained one's."""
    values = coca_jax.config.default()
    values.objective.name = "classification"
    values.optimizer.update(name="adamw", peak_learning_rate=1e-2, schedule="constant")
    values.data.dataset.update(format="folder", path=images, label_field="kind", holdout=0.2)
    values.train.update(init_from=pretrained, steps=STEPS, batch_size=8, log_every=1, tensorboard=False)
    values.train.cache_features = True
    values.evaluation.batch_size = 8
    values.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return coca_jax.config.from_config_dict(values)


def _curve(folder) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in running.rows(folder)]


def _train(config, folder) -> None:
    """As `coca_jax.train.train`, whose module defines flags that those of other commands exclude."""
    with preemption.Preemption() as stop, training_run.prepared(config, as_path(folder), stop) as loop:
        final = loop.run()
        loop.evaluate(int(final.step), final.evaluated_params)


@pytest.fixture(scope="module")
def undisturbed(images, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    _train(_config(images, pretrained), folder)
    return folder


def test_a_run_is_loaded_with_its_classes_and_the_pretrained_encoder(undisturbed, pretrained, images):
    assert [row["step"] for row in _curve(undisturbed)] == list(range(1, STEPS + 1))
    metrics = json.loads((undisturbed / "evaluation.json").read_text())
    assert 0 <= metrics["folder/accuracy"] <= 1
    coca, before = coca_jax.load(undisturbed), coca_jax.load(pretrained)
    assert coca.classes == ("dark", "light") and coca.vocabulary.model_bytes == before.vocabulary.model_bytes
    assert coca.config.model == before.config.model and coca.config.objective.head.classes == 2
    (one,) = coca.predict([f"{images}/3.png"])
    assert one.label in coca.classes and sum(one.probabilities.values()) == pytest.approx(1)
    params, given = by_name(coca._params), by_name(before._params)
    assert {name.partition("/")[0] for name in params} == {"image_encoder", "head"}
    for name in params:
        assert name.startswith("head") or np.array_equal(params[name], given[name]), name
    assert np.any(params["head/kernel"])


def test_a_restart_is_invisible_and_reads_the_classes_from_the_checkpoint(
    undisturbed, pretrained, images, tmp_path, monkeypatch
):
    # The fourth step is in the second epoch: the tokens that were kept before are computed again.
    _train(_config(images, pretrained, train__steps=4), tmp_path)
    monkeypatch.setattr(training_run, "run_classes", lambda config: pytest.fail("read again"))
    _train(_config(images, pretrained), tmp_path)
    assert _curve(tmp_path) == _curve(undisturbed)
    assert running.evaluation(tmp_path) == running.evaluation(undisturbed)
    with pytest.raises(CocaError, match=r"other settings \(objective.head.label_smoothing was 0.0, now 0.1\)"):
        _train(_config(images, pretrained, objective__head__label_smoothing=0.1), tmp_path)


def test_the_model_is_the_pretrained_ones_but_for_the_keys_that_are_set(images, pretrained):
    config, classes = training_run.adapted(_config(images, pretrained, model__image__size=32), None)
    assert classes == ("dark", "light") and config.objective.head.classes == 2
    assert config.model.image.size == 32 and config.model.width == 16 and config.model.text.length == 12
    assert config.model.image.patch == 8  # with which the size is checked, and not with the default's 18
    with pytest.raises(CocaError, match=r"model.image.patch = 8 does not divide model.image.size = 36"):
        training_run.adapted(_config(images, pretrained, model__image__size=36), None)


def test_without_a_pretrained_run_a_head_starts_from_random_parameters_with_a_warning(images, caplog):
    config = _config(images, "")
    found, _ = training_run.adapted(config, None)
    assert found.model == config.model and "train.init_from is empty: the objective classification" in caplog.text
    assert training_run.adapted(tiny.config(), None) == (tiny.config(), ())


def test_the_classes_are_part_of_the_data(images, pretrained):
    config, _ = training_run.adapted(_config(images, pretrained), None)
    prints = {
        training_run.Pipeline(config, tiny_tasks.vocabulary(), classes=classes).fingerprint
        for classes in (("dark", "light"), ("light", "dark"))
    }
    assert len(prints) == 2


def test_a_record_of_an_unknown_class_is_skipped(images, pretrained):
    config = builders.with_data(_config(images, pretrained), max_bad_ratio=0.9)
    config, _ = training_run.adapted(config, None)
    pipeline = training_run.Pipeline(config, tiny_tasks.vocabulary(), classes=("light", "other"))
    assert set(pipeline.batch(0)["label"].tolist()) == {0}
    (skipped,) = pipeline.skipped_by_source.values()
    assert set(skipped.by_cause) == {"class that is not among the run's classes"}


def test_the_labels_of_scenes_are_those_of_the_run():
    config, names = tiny_tasks.config("entailment"), tiny_tasks.CLASSES["entailment"]
    given = tiny_tasks.batch(config)
    turned = training_run.Pipeline(config, tiny_tasks.vocabulary(), classes=names[::-1]).batch(0)
    assert [names[::-1][label] for label in turned["label"]] == [names[label] for label in given["label"]]
    np.testing.assert_array_equal(turned["entailed"], given["entailed"])


def test_true_texts_cannot_be_generated_without_a_class_of_them():
    config = tiny_tasks.config(
        "pairs", objective__head__encoder_learning_rate=1e-3, objective__statements__generative_weight=1.0
    )
    with pytest.raises(CocaError, match="needs a class 'entailment' or 'true', but there are no, yes: set it to 0"):
        training_run.Pipeline(config, tiny_tasks.vocabulary(), classes=("no", "yes"))


def test_the_metric_of_the_best_checkpoint_is_checked_at_the_start_and_can_be_changed(images, pretrained, tmp_path):
    keys = dict(train__steps=2, train__evaluate_every=2, train__checkpoint_every=2)
    with pytest.raises(
        CocaError, match="keep_best = own/accuracy: no held-out data has that name: begin with one of folder"
    ):
        _train(_config(images, pretrained, train__keep_best="own/accuracy", **keys), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    _train(_config(images, pretrained, train__keep_best="folder/accuracy", **keys), tmp_path)
    _train(
        _config(images, pretrained, train__keep_best="folder/accuracy_mean_per_class", **keys | {"train__steps": 5}),
        tmp_path,
    )
    assert json.loads((tmp_path / "best.json").read_text())["metric"] == "folder/accuracy_mean_per_class"
