"""The objectives with a head: they learn, exactly in any number of parts, and what is frozen stays as it was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import tiny_tasks

from coca_jax import config as config_lib
from coca_jax import objectives
from coca_jax.data.digit_scenes.tasks import CLASSES
from coca_jax.errors import CocaError
from coca_jax.objectives import accumulation
from coca_jax.objectives.adaptation import CONTRASTIVE_PARAMETERS
from coca_jax.objectives.base import FROZEN, begins_with, by_name, from_names, labels_of, split
from coca_jax.trainer import initialization, optimizer, train_step

FINETUNED = dict(objective__head__encoder_learning_rate=3e-3)


def _objective(task: str, **changes):
    return objectives.build(tiny_tasks.config(task, **changes), tiny_tasks.vocabulary().pad_id)


def _spread(objective):
    return tiny.spread_parameters(objective.abstract_parameters()[0])


def _inputs(built: train_step.TrainStep, params) -> dict[str, np.ndarray]:
    """The inputs of the step for the first batch."""
    local = {name: array for name, array in tiny_tasks.batch(built.config).items() if name in built.batch}
    if not built.objective.encodes_first:
        return local
    images = local.pop("image")
    return local | {"tokens": built.objective.encode(train_step.encoder_parameters(params), images)}


@functools.cache
def _trained(task: str, frozen: bool):
    """(step, states at the start and after the first and the last step, metrics of each) on one batch."""
    steps = 40 if frozen else 20  # a random frozen encoder tells less
    changes = dict(optimizer__weight_decay=0.5, optimizer__clip_norm=0.0) | ({} if frozen else FINETUNED)
    if task == "actions":
        changes["objective__head__frame_positions"] = True
    config = tiny_tasks.config(task, train__steps=steps, **changes)
    mesh = tiny.mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        built = train_step.build(config, mesh, tiny_tasks.vocabulary().pad_id)
        state, function = built.init(), jax.jit(built.function)
        inputs, states, metrics = _inputs(built, state.params), [jax.tree.map(np.asarray, state)], []
        for _ in range(steps):
            state, now = function(state, inputs)
            metrics.append({name: float(value) for name, value in now.items()})
            if len(metrics) in (1, steps):
                states.append(jax.tree.map(np.asarray, state))
    return built, states, metrics


CASES = [("digits", False), ("actions", True), ("questions", False), ("entailment", True), ("pairs", False)]


@pytest.mark.parametrize("task, frozen", CASES)
def test_every_task_is_learned(task, frozen):
    built, (start, _, end), metrics = _trained(task, frozen)
    losses = [now["loss"] for now in metrics]
    classes = built.config.objective.head.classes
    assert np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0]
    assert metrics[0]["classification_loss"] == pytest.approx(np.log(classes), rel=1e-4)  # all are equally likely
    scores = {"vqa_score"} if task == "questions" else {"accuracy"}
    assert scores < metrics[0].keys() and not {"vqa_score", "accuracy"} - scores & metrics[0].keys()
    before, after = by_name(start.params), by_name(end.params)
    for name in before:
        fixed = frozen and not name.startswith("head")
        assert np.array_equal(before[name], after[name]) == fixed or name.endswith("key/bias"), name


def test_frozen_parameters_have_no_gradient_and_no_optimiser_state():
    built, (start, *_), _ = _trained("entailment", True)
    trained, frozen = split(built.objective, start.params)
    assert set(trained) == {"head"} and set(frozen) == {"image_encoder", "poolers", "unimodal", "multimodal"}
    moments = [x.shape for x in jax.tree.leaves(start.opt_state) if x.ndim]
    assert sorted(moments) == sorted(2 * [x.shape for x in jax.tree.leaves(trained)])
    assert "image" not in built.inputs and built.inputs["tokens"].shape == (8, 1, 4, 16)


def test_the_head_and_the_rest_have_their_own_rates_and_decay():
    _, (start, first, _), metrics = _trained("digits", False)
    before, after = by_name(start.params), by_name(first.params)
    # Adam's first step moves numbers by the rate, whatever their gradient's size. The classifier starts at zero, so that the
    # encoder has no gradient yet, and its kernels decay alone.
    np.testing.assert_allclose(np.median(np.abs(after["head/kernel"])), 1e-2, rtol=1e-2)
    kernel, positions = "image_encoder/layers/blocks/attention/query/kernel", "image_encoder/positions"
    np.testing.assert_allclose(after[kernel], before[kernel] * (1 - 3e-3 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(after[positions], before[positions])
    pooler = "head/pooler/attention/key/kernel"
    np.testing.assert_allclose(after[pooler], before[pooler] * (1 - 1e-2 * 0.5), rtol=1e-6)
    assert metrics[0]["learning_rate/head"] == pytest.approx(1e-2)
    assert metrics[0]["learning_rate/pretrained"] == pytest.approx(3e-3)


def test_the_warm_up_may_be_given_in_steps():
    settings = tiny.config(optimizer__warmup_steps=4, optimizer__schedule="linear").optimizer
    rate = optimizer.learning_rate(settings, 1.0, 10)
    np.testing.assert_allclose([rate(step) for step in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)
    assert float(rate(10)) == 0.0
    short = optimizer.learning_rate(settings, 1.0, 3)  # fewer steps than the warm-up has
    assert np.isfinite([float(short(step)) for step in range(4)]).all()


@pytest.mark.parametrize("task", tiny_tasks.OBJECTIVES)
def test_without_data_the_number_of_classes_is_asked_for(task):
    with pytest.raises(CocaError, match=r"number of classes is not known: set objective\.head\.classes"):
        _objective(task, objective__head__classes=0)


@pytest.mark.parametrize("task, parts", [("digits", 2), ("questions", 4)])
def test_parts_of_a_batch_give_its_gradient(task, parts):
    objective = _objective(task, **FINETUNED, objective__head__label_smoothing=0.1 * (task == "digits"))
    trained, frozen = split(objective, _spread(objective))
    rows = {name: array for name, array in tiny_tasks.batch(objective._config).items() if name in objective.batch()}
    arguments = (trained, frozen, rows, jax.random.key(1))
    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        gradient, metrics = jax.jit(accumulation.gradients(objective))(*arguments)
        in_parts, same = jax.jit(accumulation.gradients(objective, parts))(*arguments)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), in_parts, gradient)
    assert same.keys() == metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(same[name], metrics[name], rtol=1e-5, err_msg=name)


def test_smoothed_cross_entropy_is_its_formula():
    objective = _objective("digits", objective__head__label_smoothing=0.3)
    logits, labels = np.random.default_rng(0).normal(size=(8, 10)).astype(np.float32), np.arange(8) % 10
    loss, metrics = objective.classifier_sums(jnp.asarray(logits), {"label": jnp.asarray(labels)})
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smoothed = np.full((8, 10), 0.3 / 10) + 0.7 * np.eye(10)[labels]
    assert float(loss) == pytest.approx(-(smoothed * log_p).sum(axis=1).mean(), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(logits.argmax(axis=1) == labels))


def test_the_loss_of_soft_targets_is_its_formula():
    objective = _objective("questions", **FINETUNED, objective__vqa__classifier_weight=2.0)
    params, rows = _spread(objective), tiny_tasks.batch(objective._config)
    rng = np.random.default_rng(0)
    rows["targets"] = np.where(rng.random(rows["targets"].shape) < 0.1, 0.6, 0.0).astype(np.float32)
    rows["targets"][3] = 0  # none of its answers is a class
    _, metrics = jax.jit(objective.loss)(params, rows, jax.random.key(0))
    text, asked = rows["text"], np.arange(48)[None] < rows["question"][:, None]

    @jax.jit
    def logits_of(params):
        tokens = objective.encode(params, rows["image"])
        return objective.model.apply({"params": params}, tokens, text, text != objective.pad_id, asked).logits_BC

    logits = logits_of(params)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    expected = -(rows["targets"] * log_p).sum() / rows["targets"].sum()
    assert float(metrics["classification_loss"]) == pytest.approx(expected, rel=1e-4)
    score = np.take_along_axis(rows["targets"], np.asarray(logits).argmax(axis=1)[:, None], axis=1).mean()
    assert float(metrics["vqa_score"]) == pytest.approx(score, rel=1e-4)
    total = 2.0 * metrics["classification_loss"] + metrics["captioning_loss"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("task, frozen", CASES)
def test_whatever_is_trained_has_a_gradient(task, frozen):
    """Without one, weight decay alone would wear it away."""
    built, (*_, end), _ = _trained(task, frozen)
    moments = by_name(optax.tree.get(end.opt_state, "mu"))
    assert moments.keys() == by_name(split(built.objective, end.params)[0]).keys()
    assert not [name for name, x in moments.items() if not np.any(x)]


def test_without_a_generative_loss_the_softmax_keeps_what_it_has():
    objective = _objective("questions", **FINETUNED, objective__vqa__generative_weight=0.0)
    labels = labels_of(objective, objective.abstract_parameters()[0])
    assert {name for name, label in labels.items() if label == FROZEN} == {"softmax/kernel", "softmax/bias"}
    assert FROZEN not in labels_of(_objective("questions", **FINETUNED), objective.abstract_parameters()[0]).values()


# From a pretrained model


@functools.cache
def _pretrained():
    changes = dict(model__text__vocabulary_size=80, model__text__length=48)
    return by_name(_spread(objectives.build(tiny.config(**changes), 0)))


@pytest.mark.parametrize("task", tiny_tasks.OBJECTIVES)
def test_what_comes_from_pretraining_is_kept_bit_for_bit(task):
    given, objective = _pretrained(), _objective(task)
    fresh = jax.tree.map(lambda x: x + 1, _spread(objective))
    found = by_name(initialization.fitted(objective, from_names(given), fresh, "run"))
    assert found.keys() == by_name(fresh).keys()
    for name, x in found.items():
        if name.startswith("head"):
            np.testing.assert_array_equal(x, by_name(fresh)[name])
        else:
            assert x is given[name], name
    left = {name for name in given if name not in found}
    assert left and all(begins_with(name, *objective.unused_parameters) for name in left)
    # Nothing of the contrastive branch is left over, and all else that is discarded is named by the paper.
    kept = {"digits": {"image_encoder"}, "actions": {"image_encoder"}}.get(
        task, {"image_encoder", "poolers", "unimodal", "multimodal"} | ({"softmax"} if task == "questions" else set())
    )
    assert {name.partition("/")[0] for name in found} == kept | {"head"}
    assert not any(begins_with(name, *CONTRASTIVE_PARAMETERS) for name in found)


@pytest.mark.parametrize("task, true", [("entailment", "entailment"), ("pairs", "true")])
def test_only_texts_that_are_true_of_their_images_are_generated(task, true):
    objective = _objective(task, objective__statements__generative_weight=2.0, **FINETUNED)
    given = tiny_tasks.batch(tiny_tasks.config(task))
    assert given["entailed"].tolist() == (given["label"] == CLASSES[task].index(true)).tolist()
    assert 0 < given["entailed"].sum() < len(given["label"])
    params = _spread(objective)
    wanted = {name: jnp.asarray(given[name]) for name in ("image", "text", "label", "entailed")}

    def losses(batch):
        loss, metrics = objective.loss(params, batch, jax.random.key(0))
        loss, metrics = float(loss), {name: float(value) for name, value in metrics.items()}
        assert loss == pytest.approx(metrics["classification_loss"] + 2.0 * metrics["captioning_loss"], rel=1e-5)
        return metrics

    first = losses(wanted)
    rows = np.flatnonzero(~given["entailed"])
    others = given["text"].copy()
    others[rows, 2:4] = others[rows, 3:1:-1]
    changed = losses(wanted | {"text": jnp.asarray(others)})
    assert changed["captioning_loss"] == pytest.approx(first["captioning_loss"], rel=1e-6)
    assert changed["classification_loss"] != pytest.approx(first["classification_loss"], rel=1e-6)
    if task == "pairs":  # the loss is the mean of those of the two images
        left, right = (losses(wanted | {"image": wanted["image"][:, [image] * 2]}) for image in (0, 1))
        mean = (left["captioning_loss"] + right["captioning_loss"]) / 2
        assert first["captioning_loss"] == pytest.approx(mean, rel=1e-5)
        assert left["captioning_loss"] != pytest.approx(right["captioning_loss"], rel=1e-6)


def test_a_locked_image_encoder_is_frozen_alone_and_encodes_first():
    changes = dict(objective__head__encoder_learning_rate=1e-3, objective__head__lock_image_encoder=True)
    objective = _objective("questions", **changes)
    labels = labels_of(objective, objective.abstract_parameters()[0])
    assert objective.encodes_first and set(labels.values()) == {"head", "pretrained", FROZEN}
    for name, label in labels.items():
        assert (label == FROZEN) == name.startswith("image_encoder/"), name
    with pytest.raises(CocaError, match="leaves only the head"):
        config_lib.from_config_dict(config_lib.to_config_dict(tiny_tasks.config("digits", **changes)))


# Captioning


def _captioning(**weights):
    sizes = dict(model__text__vocabulary_size=32, optimizer__name="adamw", optimizer__weight_decay=0.5)
    changes = {f"objective__captioning__{name}": value for name, value in weights.items()}
    return tiny.config(objective__name="captioning", **sizes, **changes)


def test_captioning_alone_keeps_the_embeddings_parameters_bit_for_bit():
    config, mesh = _captioning(captioning_weight=3.0), tiny.mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        built = train_step.build(config, mesh, tiny.PAD)
        state, step = built.init(), jax.jit(built.function)
        start = by_name(jax.tree.map(np.asarray, state.params))
        for number in range(3):
            state, metrics = step(state, tiny.batch(config, number))
    end = by_name(jax.tree.map(np.asarray, state.params))
    labels = labels_of(built.objective, state.params)
    for name, x in start.items():
        embeds = begins_with(name, "poolers/contrastive", "unimodal/cls_embedding", "unimodal/norm", "temperature")
        assert (labels[name] == FROZEN) == embeds, name
        assert np.array_equal(end[name], x) == embeds or name.endswith("key/bias"), name
    assert {"poolers/contrastive/queries", "unimodal/cls_embedding", "temperature"} < start.keys()
    assert "contrastive_loss" not in metrics


def test_captioning_has_the_losses_of_pretraining_with_its_weights():
    captioning = objectives.build(_captioning(captioning_weight=3.0), tiny.PAD)
    weights = dict(objective__pretraining__contrastive_weight=0.0, objective__pretraining__captioning_weight=3.0)
    pretraining = objectives.build(tiny.config(**weights), tiny.PAD)
    params = by_name(_spread(captioning))
    fewer = from_names({name: params[name] for name in by_name(pretraining.abstract_parameters()[0])})
    batch, key = tiny.batch(tiny.config()), jax.random.key(0)
    _, found = jax.jit(captioning.loss)(from_names(params), batch, key)
    _, expected = jax.jit(pretraining.loss)(fewer, batch, key)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)


def test_captioning_may_have_a_share_of_the_contrastive_loss():
    objective = objectives.build(_captioning(contrastive_weight=0.5), tiny.PAD)
    assert set(labels_of(objective, objective.abstract_parameters()[0]).values()) == {"all"}
    _, metrics = jax.jit(objective.loss)(_spread(objective), tiny.batch(tiny.config()), jax.random.key(0))
    total = 0.5 * metrics["contrastive_loss"] + metrics["captioning_loss"]
    assert float(metrics["loss"]) == pytest.approx(float(total), rel=1e-5)
