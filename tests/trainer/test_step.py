import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from coca_jax import generation, objectives
from coca_jax.config import OptimizerConfig
from coca_jax.data.text.vocabulary import Vocabulary, train_vocabulary
from coca_jax.distributed import sharding
from coca_jax.models import coca
from coca_jax.objectives import base
from coca_jax.trainer import optimizer, state, train_step

CAPTIONS = [
    "a red three",
    "a blue seven",
    "a small green one above a nine",
    "two",
    "a large yellow eight",
    "a blue four left of a red five",
    "a tiny six",
    "a violet zero under a grey two",
]


class Run:
    """A compiled train step on a mesh, with its state."""

    def __init__(self, config, mesh, batch):
        self.mesh = mesh
        built = train_step.build(config, mesh, tiny.PAD)
        self.model = built.objective.model
        with jax.set_mesh(mesh):
            self.batch = jax.device_put(batch, sharding.batch_sharding(mesh))
            self.compiled = built.compile({"xla_backend_optimization_level": 0})  # fast to compile
            self.state = built.init()

    def train(self, steps: int) -> list[dict[str, float]]:
        history = []
        with jax.set_mesh(self.mesh):
            for _ in range(steps):
                self.state, metrics = self.compiled(self.state, self.batch)
                history.append({key: float(value) for key, value in metrics.items()})
        return history


# The optimiser


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules(schedule):
    config = OptimizerConfig(peak_learning_rate=1e-3, warmup_fraction=0.2, schedule=schedule)
    rates = np.array([optimizer.learning_rate(config, 1e-3, 50)(t) for t in range(51)])
    np.testing.assert_allclose(rates[:10], 1e-3 * np.arange(1, 11) / 10, rtol=1e-5)  # no step is spent at rate 0
    assert rates[10] == pytest.approx(1e-3)
    share = np.arange(41) / 40
    after = {"linear": 1 - share, "cosine": (1 + np.cos(np.pi * share)) / 2, "constant": np.ones(41)}[schedule]
    np.testing.assert_allclose(rates[10:], 1e-3 * after, atol=1e-9)
    assert (rates[:50] > 0).all() and (rates[50] < 1e-9) == (schedule != "constant")


@pytest.mark.parametrize("steps, fraction", [(10, 0.0), (1, 0.0), (10, 0.1), (10, 0.99), (1, 0.9)])
def test_schedules_of_few_steps(steps, fraction):
    config = OptimizerConfig(peak_learning_rate=1e-3, warmup_fraction=fraction)
    rates = [float(optimizer.learning_rate(config, 1e-3, steps)(t)) for t in range(steps)]
    assert max(rates) == pytest.approx(1e-3) and min(rates) > 0


def test_only_kernels_and_embeddings_decay():
    params, _ = objectives.build(tiny.config()).abstract_parameters()
    for path, decays in jax.tree_util.tree_leaves_with_path(optimizer.decay_mask(params)):
        assert decays == (path[-1].key in ("kernel", "embedding")), path


@pytest.mark.parametrize("name", ["adafactor", "adamw", "muon"])
def test_weight_decay_is_decoupled(name):
    params = {"kernel": jnp.full((4, 3), 2.0), "embedding": jnp.full((5,), -3.0), "bias": jnp.full((3,), 2.0)}
    grads = jax.tree.map(lambda x: jnp.linspace(-1.0, 2.0, x.size).reshape(x.shape), params)

    def updates(decay, gradient_scale=1.0):
        config = OptimizerConfig(name, 0.1, warmup_fraction=0, schedule="constant", weight_decay=decay)
        chain = tiny.chain(config, 10, params)
        scaled = jax.tree.map(lambda g: g * gradient_scale, grads)
        return jax.jit(lambda: chain.update(scaled, chain.init(params), params)[0])()

    plain, decayed = updates(0.0), updates(0.01)
    for key, weight in params.items():
        # Exactly rate · decay · weight, whatever the gradient's size: it passed no moment.
        expected = -0.1 * 0.01 * weight if key != "bias" else 0 * weight
        np.testing.assert_allclose(decayed[key] - plain[key], expected, atol=1e-7)
        assert np.abs(plain[key]).max() > 1e-3
    np.testing.assert_allclose(updates(0.01, 0.0)["kernel"], -0.1 * 0.01 * params["kernel"], rtol=1e-5)


def test_adamw_equals_its_formula():
    config = OptimizerConfig("adamw", 0.1, warmup_fraction=0, schedule="constant", b1=0.9, b2=0.95, weight_decay=0.01)
    params, rng = {"kernel": jnp.array([1.0, -2.0, 0.5])}, np.random.default_rng(0)
    chain = tiny.chain(config, 10, params)
    opt_state, weight, m, v = chain.init(params), np.array([1.0, -2.0, 0.5]), 0.0, 0.0
    for t in range(1, 4):
        g = rng.normal(size=3)
        updates, opt_state = chain.update({"kernel": jnp.float32(g)}, opt_state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        weight = weight - 0.1 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.01 * weight)
        np.testing.assert_allclose(params["kernel"], weight, rtol=1e-5)


def test_adafactor_equals_its_formula():
    # A small kernel: not factored. Adam's second moment, the update clipped at RMS 1, then the first moment.
    config = OptimizerConfig("adafactor", 0.1, warmup_fraction=0, schedule="constant", weight_decay=0.0)
    params, rng = {"kernel": jnp.zeros((3, 2))}, np.random.default_rng(0)
    chain = tiny.chain(config, 10, params)
    opt_state, m, v = chain.init(params), 0.0, 0.0
    for t in range(1, 4):
        g = rng.normal(size=(3, 2)) * t
        updates, opt_state = chain.update({"kernel": jnp.float32(g)}, opt_state, params)
        v = 0.999 * v + 0.001 * g * g
        u = g / np.sqrt(v / (1 - 0.999**t))
        u = u / max(1.0, np.sqrt(np.mean(u * u)))
        m = 0.9 * m + 0.1 * u
        np.testing.assert_allclose(updates["kernel"], -0.1 * m, rtol=2e-2)  # the first moment is bfloat16


def test_muon_orthogonalises_each_layers_matrices():
    params, _ = objectives.build(tiny.config()).abstract_parameters()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    config = OptimizerConfig("muon", 1.0, warmup_fraction=0, schedule="constant", weight_decay=0.0)
    chain = tiny.chain(config, 10, params)
    updates, _ = jax.jit(lambda g: chain.update(g, chain.init(g), g))(grads)
    adam = tiny.chain(dataclasses.replace(config, name="adamw"), 10, params)
    adam_updates, _ = jax.jit(lambda g: adam.update(g, adam.init(g), g))(grads)
    seen = set()
    for (path, x), update, by_adam in zip(leaves, jax.tree.leaves(updates), jax.tree.leaves(adam_updates), strict=True):
        names = [entry.key for entry in path]
        if names[-1] != "kernel":
            np.testing.assert_array_equal(np.sign(update), np.sign(by_adam))  # optax gives it Nesterov's momentum
            continue
        stacked, heads_in = "blocks" in names, names[-2] == "out" and "stem" not in names
        layers, rest = x.shape[:1] if stacked else (1,), x.shape[1:] if stacked else x.shape
        rows = math.prod(rest[:-1]) if heads_in else rest[0]
        matrices = np.asarray(update).reshape(*layers, rows, -1)
        # Nearly all singular values near one size (Newton-Schulz: 0.6 to 1.3), with the root mean square of Adam's.
        values = np.linalg.svd(matrices, compute_uv=False) / (0.2 * math.sqrt(max(matrices.shape[1:])))
        assert np.quantile(values, 0.15) > 0.6 and values.max() < 1.3, (names, values)
        seen.add((stacked, heads_in))
    assert seen == {(True, True), (True, False), (False, True), (False, False)}


def test_gradients_are_clipped_by_their_global_norm():
    grads = {"kernel": jnp.array([30.0, 0.0]), "bias": jnp.array([0.0, 40.0])}
    config = OptimizerConfig("adamw", clip_norm=1.0)
    clipped = tiny.chain(config, 10, grads).init(grads), tiny.chain(config, 10, grads).update
    _, opt_state = clipped[1](grads, clipped[0], grads)
    moments = [np.asarray(x) for x in jax.tree.leaves(opt_state) if x.shape == (2,)]
    np.testing.assert_allclose(moments[1], [0.1 * 0.6, 0], rtol=1e-5)  # of the kernel: leaves are sorted by name
    np.testing.assert_allclose(moments[0], [0, 0.1 * 0.8], rtol=1e-5)


# State


_PARAMETERS: dict[str, dict] = {}


@pytest.mark.parametrize("name", ["adafactor", "adamw", "muon"])
def test_the_abstract_state_is_the_real_one(name, monkeypatch):
    # Wide enough for Adafactor to factor its second moments.
    config = tiny.config(
        optimizer__name=name,
        optimizer__ema_decay=0.9,
        model__width=128,
        model__image__mlp=256,
        model__text__mlp=256,
        model__text__vocabulary_size=256,
    )
    mesh = tiny.mesh(2, 2, 2)
    built = train_step.build(config, mesh)
    assert not any(isinstance(x, jax.Array) for x in jax.tree.leaves(built.state))
    # The parameters do not depend on the optimiser, and are long to compile: made by the first, taken by the others.
    if made := _PARAMETERS.get("made"):
        monkeypatch.setattr(coca, "init", lambda model, key: made)
    with jax.set_mesh(mesh):
        real = built.init()
    _PARAMETERS["made"] = jax.tree.map(np.asarray, real.params)
    assert jax.tree.structure(real) == jax.tree.structure(built.state)
    factored = 0
    for (path, x), spec in zip(jax.tree_util.tree_leaves_with_path(real), jax.tree.leaves(built.state), strict=True):
        where = jax.tree_util.keystr(path)
        assert (x.shape, x.dtype) == (spec.shape, spec.dtype), where
        assert x.sharding == spec.sharding and x.sharding.mesh == mesh, where
        factored += "v_row" in where and x.size > 1
        if x.size > 10_000:
            assert not x.sharding.is_fully_replicated, where
    assert (factored > 0) == (name == "adafactor")
    jax.tree.map(np.testing.assert_array_equal, real.average, real.params)
    assert real.step == 0
    jax.tree.map(lambda a, b: a is b or pytest.fail(), real.evaluated_params, real.average)


def test_without_an_average_evaluations_use_the_parameters():
    params = {"kernel": jnp.ones(2)}
    assert state.TrainState(jnp.zeros(()), params, None, ()).evaluated_params is params


# The step


HEART = dict(steps=200, rate=1e-2, warmup=20)


@functools.cache
def _by_heart() -> tuple[Run, list[dict[str, float]], list, Vocabulary]:
    """AdamW on one batch of pictures with `CAPTIONS`, until it is learned, and the states of the first ten steps."""
    vocabulary = train_vocabulary(CAPTIONS, 64)
    assert vocabulary.pad_id == tiny.PAD
    config = tiny.config(
        model__width=32,
        model__text__vocabulary_size=vocabulary.size,
        model__text__length=24,
        objective__pretraining__unimodal_language_model_weight=0.5,
        optimizer__name="adamw",
        optimizer__peak_learning_rate=HEART["rate"],
        optimizer__warmup_fraction=HEART["warmup"] / HEART["steps"],
        optimizer__clip_norm=1.0,
        optimizer__ema_decay=0.5,
        train__steps=HEART["steps"],
    )
    batch = tiny.batch(config) | {"text": vocabulary.encode(CAPTIONS, 24)}
    run = Run(config, tiny.mesh(1, 1, 1), batch)
    states, history = [jax.tree.map(np.asarray, run.state)], []
    for _ in range(10):
        history += run.train(1)
        states.append(jax.tree.map(np.asarray, run.state))
    return run, history + run.train(HEART["steps"] - 10), states, vocabulary


def test_adafactor_reduces_the_loss():  # AdamW learns by heart below
    config = tiny.config(optimizer__name="adafactor", optimizer__ema_decay=0.5)
    run = Run(config, tiny.mesh(1, 1, 1), tiny.batch(config))
    history = run.train(10)
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]
    assert run.state.step == 10
    assert all(np.isfinite(list(metrics.values())).all() for metrics in history)


def test_metrics_add_up():
    run, history, _, _ = _by_heart()
    assert run.state.step == len(history) == HEART["steps"]
    for metrics in history:
        assert np.isfinite(list(metrics.values())).all()
        total = (
            metrics["contrastive_loss"] + 2 * metrics["captioning_loss"] + 0.5 * metrics["unimodal_language_model_loss"]
        )
        assert metrics["loss"] == pytest.approx(total, rel=1e-5)
    assert history[0]["temperature"] == pytest.approx(0.07) != history[-1]["temperature"]
    steps, warmup = HEART["steps"], HEART["warmup"]
    shares = [*np.arange(1, warmup + 1) / warmup, *1 - np.arange(steps - warmup) / (steps - warmup)]
    np.testing.assert_allclose([m["learning_rate"] for m in history], HEART["rate"] * np.array(shares), rtol=1e-4)
    assert all(metrics["gradient_norm"] > 0 for metrics in history)


def test_the_average_follows_the_parameters():
    _, _, states, _ = _by_heart()
    expected = states[0].params
    for t, after in enumerate(states[1:]):
        rate = min(0.5, (1 + t) / (10 + t))
        expected = jax.tree.map(lambda a, p, rate=rate: rate * a + (1 - rate) * p, expected, after.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.average, expected)
    assert not np.allclose(states[-1].average["softmax"]["kernel"], states[-1].params["softmax"]["kernel"])


def test_the_key_depends_on_seed_and_step():
    config = tiny.config(optimizer__name="adamw")

    class Draws(base.Objective):
        groups, labels = {"all": base.Group(0.1, 0.0)}, {"": "all"}

        def batch(self):
            return {}

        def partial_loss(self, params, batch, totals):
            return jnp.sum(params["kernel"]), {"draw": totals}, None

        def prepare(self, batch, key):
            return batch, jax.random.uniform(key)

    def draws(seed):
        seeded = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        params = {"kernel": jnp.ones(2)}
        chain = tiny.chain(config.optimizer, 10, params)
        function = jax.jit(train_step.step_function(seeded, Draws(), chain))
        current = state.TrainState(jnp.zeros((), jnp.int32), params, None, chain.init(params))
        found = []
        for _ in range(3):
            current, metrics = function(current, {})
            found.append(float(metrics["draw"]))
        return found

    assert draws(0) == draws(0) and len(set(draws(0) + draws(1))) == 6


@pytest.mark.parametrize(
    "changes",
    [
        dict(train__microbatches=2, objective__pretraining__prefix_captioning=True),
        dict(optimizer__name="muon", model__image__kind="convnet", optimizer__ema_decay=0.9),
        dict(model__pooler__kind="parallel", model__image__stem="conv", optimizer__clip_norm=1.0),
        dict(model__text__tied_softmax=True, objective__pretraining__unimodal_language_model_weight=1.0),
    ],
)
def test_no_array_is_broadcast_for_want_of_an_axis(changes):
    config, mesh = tiny.config(**changes), tiny.mesh(2, 2, 2)
    built = train_step.build(config, mesh)
    with jax.set_mesh(mesh):
        jax.make_jaxpr(built.function)(built.state, built.batch)  # with numpy_rank_promotion, see conftest.py


# The whole thing learns


def test_one_batch_is_learned_by_heart():
    run, history, _, vocabulary = _by_heart()
    batch = jax.device_get(run.batch)
    ids = batch["text"]
    assert history[0]["captioning_loss"] > 2 and history[0]["contrastive_loss"] > 0.5
    assert history[-1]["captioning_loss"] < 0.02 and history[-1]["contrastive_loss"] < 0.02
    assert history[-1]["captioning_accuracy"] == history[-1]["contrastive_accuracy"] == 1
    params, special = (
        run.state.params,
        dict(bos_id=vocabulary.bos_id, eos_id=vocabulary.eos_id, pad_id=vocabulary.pad_id),
    )
    found = jax.jit(lambda images: generation.generate(run.model, params, images, **special))(batch["image"])
    assert vocabulary.decode(found) == CAPTIONS
    np.testing.assert_array_equal(found, ids)
    output = jax.jit(run.model.apply)({"params": params}, batch["image"], ids, ids != tiny.PAD)
    similarities = np.asarray(output.image_embedding_BE @ output.text_embedding_BE.T)
    for scores in (similarities, similarities.T):
        np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(8))
