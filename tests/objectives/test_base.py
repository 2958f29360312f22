"""An objective that freezes the image encoder and gives two groups of parameters rates of their own."""

import functools

import jax
import numpy as np
import pytest
import tiny

from coca_jax import objectives
from coca_jax.errors import CocaError
from coca_jax.models import coca
from coca_jax.objectives import accumulation
from coca_jax.objectives.base import FROZEN, Group, by_name, from_names, labels_of, merge, split
from coca_jax.objectives.pretraining import Pretraining
from coca_jax.storage.files import as_path
from coca_jax.trainer import checkpoint, flops, initialization, train_step
from coca_jax.trainer.checkpoint import Checkpoints, RunRecord


class Adaptation(Pretraining):
    """Pretraining with a frozen image encoder, and poolers that learn ten times as fast as the decoder."""

    def __init__(self, config, pad_id=0):
        super().__init__(config, pad_id)
        self.groups = {"poolers": Group(1e-2, 0.0), "rest": Group(1e-3, 0.5)}
        self.labels = {"image_encoder": FROZEN, "poolers": "poolers", "": "rest"}
        self.new_parameters = ("poolers/contrastive", "temperature")
        self.unused_parameters = ("softmax",)


@pytest.fixture
def adaptation(monkeypatch):
    """Has `objectives.build` give an `Adaptation`."""

    def clear():
        train_step._optimizer_and_state.cache_clear()
        train_step._counted.cache_clear()

    monkeypatch.setattr(objectives, "build", Adaptation)
    clear()
    yield
    clear()


def _config(**changes):
    fixed = dict(optimizer__name="adamw", optimizer__schedule="constant", optimizer__ema_decay=0.5)
    return tiny.config(**fixed | changes)


@functools.cache
def _trained():
    """(step, the states at the start and after each of three steps, the steps' metrics), as numpy arrays; to be called
    where there is an `adaptation`."""
    config, mesh = _config(), tiny.mesh(1, 1, 1)
    built = train_step.build(config, mesh, tiny.PAD)
    step = jax.jit(built.function)
    with jax.set_mesh(mesh):
        state, batch, metrics = built.init(), tiny.batch(config), []
        states = [jax.tree.map(np.asarray, state)]
        for _ in range(3):
            state, now = step(state, batch)
            states.append(jax.tree.map(np.asarray, state))
            metrics.append(now)
    return built, states, metrics


def _names(tree) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def test_frozen_parameters_stay_bit_for_bit_and_have_neither_optimiser_state_nor_average(adaptation):
    _, (start, *_, end), metrics = _trained()
    before, after, evaluated = by_name(start.params), by_name(end.params), by_name(end.evaluated_params)
    assert before.keys() == after.keys() == evaluated.keys()
    for name in before:
        frozen = name.startswith("image_encoder/")
        assert np.array_equal(before[name], after[name]) == frozen or name.endswith("key/bias"), name
        if frozen:
            np.testing.assert_array_equal(evaluated[name], before[name])
    for tree in (end.opt_state, end.average):
        assert any("poolers" in name for name in _names(tree))
        assert not any("image_encoder" in name for name in _names(tree))
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_the_step_counts_no_backward_pass_of_a_frozen_encoder(adaptation, monkeypatch):
    config = _config()
    image = config.model.image
    frozen = train_step.step_flops(config)
    objective = Adaptation(config)
    images = objective.batch()["image"]
    params = objective.abstract_parameters()[0]

    def encode(params, images):
        return objective.model.apply({"params": params}, images, method=lambda model, x: model.image_encoder(x))

    # The same step on stored tokens, in which there is no encoder at all, and one forward pass of the encoder.
    monkeypatch.setattr(objectives, "build", Pretraining)
    tokens = (image.size // image.patch) ** 2
    records = dict(data__dataset__format="folder", data__dataset__path="of stored tokens")
    stored = _config(model__image__kind="precomputed", model__image__tokens=tokens, **records)
    assert frozen == train_step.step_flops(stored) + flops.count(encode, params, images)
    train_step._counted.cache_clear()
    train_step._optimizer_and_state.cache_clear()
    assert train_step.step_flops(config) > frozen + 1.5 * flops.count(encode, params, images)


def test_groups_have_their_own_rates_and_decay(adaptation):
    _, states, metrics = _trained()
    before, after = by_name(states[0].params), by_name(states[1].params)
    # Adam's first step moves numbers by the rate, whatever their gradient's size; then comes the decay.
    for name, rate, decay in (("poolers/generative/queries", 1e-2, 0.0), ("softmax/kernel", 1e-3, 0.5)):
        moved = after[name] - before[name] * (1 - rate * decay)
        np.testing.assert_allclose(np.median(np.abs(moved)), rate, rtol=1e-2, err_msg=name)
    np.testing.assert_allclose(metrics[0]["learning_rate/poolers"], 1e-2, rtol=1e-6)
    np.testing.assert_allclose(metrics[0]["learning_rate/rest"], 1e-3, rtol=1e-6)
    assert "learning_rate" not in metrics[0]


def test_parts_of_a_batch_give_its_gradient_for_the_trained_parameters():
    config = _config()
    objective = Adaptation(config, tiny.PAD)
    params = jax.jit(lambda: coca.init(objective.model, jax.random.key(0)))()
    trained, frozen = split(objective, params)
    arguments = (trained, frozen, tiny.batch(config), jax.random.key(1))
    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        whole, metrics = jax.jit(accumulation.gradients(objective))(*arguments)
        parts, same = jax.jit(accumulation.gradients(objective, 4))(*arguments)
    assert by_name(whole).keys() == by_name(trained).keys() and metrics.keys() == same.keys()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], same[name], rtol=1e-5)


def test_splitting_and_merging_are_inverse():
    objective = Adaptation(_config())
    params, _ = objective.abstract_parameters()
    trained, frozen = split(objective, params)
    assert list(frozen) == ["image_encoder"] and "image_encoder" not in trained
    assert jax.tree.structure(merge(trained, frozen)) == jax.tree.structure(params)
    assert labels_of(objective, params)["poolers/generative/queries"] == "poolers"


@pytest.mark.parametrize(
    "labels, problem",
    [({"poolers": "poolers"}, "has no label"), ({"": "head"}, "has the label 'head', which is no group")],
)
def test_a_parameter_without_a_label_is_named(labels, problem):
    objective = Adaptation(_config())
    objective.labels = labels
    with pytest.raises(CocaError, match=f"the parameter image_encoder/[a-z_/]+ {problem}: give it one of frozen, po"):
        labels_of(objective, objective.abstract_parameters()[0])


def test_beginnings_of_names_are_whole_parts():
    objective = Adaptation(_config())
    objective.labels = {"image_enc": FROZEN, "": "rest"}
    assert set(labels_of(objective, objective.abstract_parameters()[0]).values()) == {"rest"}


# Initialisation from another run


def _given(change):
    """Parameters of another run: those of the model, changed."""
    objective = Adaptation(_config())
    fresh = jax.tree.map(lambda x: np.zeros(x.shape), objective.abstract_parameters()[0])
    given = {name: np.ones(x.shape) for name, x in by_name(fresh).items()}
    change(given)
    return objective, given, fresh


def test_what_may_be_new_starts_fresh_and_what_is_not_used_is_left(caplog):
    def change(given):
        for name in [name for name in given if name.startswith("poolers/contrastive/") or name == "temperature"]:
            del given[name]
        given["softmax/extra"] = np.ones(3)

    objective, given, fresh = _given(change)
    with caplog.at_level("INFO", "coca_jax"):
        params = by_name(initialization.fitted(objective, from_names(given), fresh, "run"))
    for name, x in params.items():
        assert np.all(x == (0 if name.startswith("poolers/contrastive/") or name == "temperature" else 1)), name
    assert (
        params.keys() == by_name(fresh).keys() and "start at random: poolers/contrastive, temperature\n" in caplog.text
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda given: given.pop("unimodal/norm/scale"), "run has no parameter unimodal/norm/scale"),
        (lambda given: given.update({"head/kernel": np.ones(2)}), "run has the parameter head/kernel, for which"),
        (lambda given: given.update({"softmax/bias": np.ones(2)}), "the parameter softmax/bias has the shape"),
    ],
)
def test_all_else_is_refused_by_name(change, message):
    objective, given, fresh = _given(change)
    with pytest.raises(CocaError, match=message):
        initialization.fitted(objective, from_names(given), fresh, "run")


# Checkpoints


def test_a_checkpoint_restores_with_frozen_parameters(adaptation, tmp_path):
    built, (*_, end), _ = _trained()
    checkpoints = Checkpoints(as_path(tmp_path), keep=1)
    checkpoints.save(jax.device_put(end), 3, RunRecord(built.config, b"a vocabulary", "data"))
    restored = checkpoints.restore(3, built)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, end)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(tmp_path).params, end.evaluated_params)
