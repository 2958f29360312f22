import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from flax.core import meta

from coca_jax import config as config_lib
from coca_jax.distributed.sharding import Axis, spec
from coca_jax.models import attention, block, coca, image_encoder, text_decoder
from coca_jax.objectives.losses import captioning, contrastive

# Every size is its own number, so that a shape says what an axis is.
B, N, Q, L, D, V = 4, 4, 3, 8, 16, 37
TINY = {
    "model.width": D,
    "model.heads": 2,
    "model.dtype": "float32",
    "model.image.size": 16,
    "model.image.patch": 8,
    "model.image.layers": 2,
    "model.image.mlp": 24,
    "model.pooler.queries": Q,
    "model.pooler.hidden_multiple": 2,
    "model.text.vocabulary_size": V,
    "model.text.length": L,
    "model.text.mlp": 40,
    "model.text.unimodal_layers": 2,
    "model.text.multimodal_layers": 2,
}
LENGTHS = (8, 5, 3, 6)  # valid tokens of each text


# Tests compile much and compute little.
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def _coca(changes: dict) -> coca.Coca:
    values = config_lib.default()
    values.data.dataset.update(format="folder", path="tokens")  # as a config with precomputed tokens needs
    values.update_from_flattened_dict(TINY | {key.replace("__", "."): value for key, value in changes.items()})
    return tiny.model(config_lib.from_config_dict(values))


@functools.cache
def _model(**changes) -> tuple[coca.Coca, dict]:
    """A tiny model, and random parameters of which none is zero; keys write `__` for a dot."""
    model = _coca(changes)
    rng = np.random.default_rng(0)
    kinds = {"scale": (1, 0.1), "bias": (0, 0.1), "temperature": (0.07, 0), "queries": (0, 1)}

    def parameter(path, leaf):
        mean, deviation = kinds.get(path[-1].key, (0, 0.25))
        return (mean + rng.normal(0, 1, leaf.shape) * deviation).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(parameter, coca.abstract_parameters(model)[0])


def _main() -> tuple[coca.Coca, dict]:
    """The paper's model with the language-model loss too: everything is on."""
    return _model(objective__pretraining__unimodal_language_model_weight=1.0)


@functools.cache
def _batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (B, 16, 16, 3)).astype(np.uint8)
    return images, rng.integers(0, V, (B, L)).astype(np.int32), np.arange(L) < np.array(LENGTHS)[:, None]


def _both(model, params, images, ids, valid):
    """The model's output, and both decoder halves' logits where there are any."""
    output = model.apply({"params": params}, images, ids, valid)
    hiddens = (output.hidden_BLD, output.unimodal_hidden_BLD)
    return output, [None if h is None else output.softmax.logits(h) for h in hiddens]


def _loss_of(output, ids, valid):
    labels, mask = captioning.next_tokens(ids, valid)
    total = 0.0
    if output.temperature is not None:
        total += contrastive.contrastive_loss(output.image_embedding_BE, output.text_embedding_BE, output.temperature)[
            0
        ]
    for hidden in (output.hidden_BLD, output.unimodal_hidden_BLD):
        if hidden is not None:
            sums, _ = captioning.captioning_sums(hidden, output.softmax.kernel_DV, output.softmax.bias_V, labels, mask)
            total += jnp.sum(sums) / jnp.sum(mask)
    return total


def _loss(model, params, images, ids, valid):
    return _loss_of(model.apply({"params": params}, images, ids, valid), ids, valid)


@functools.partial(_jit, static_argnums=0)
def _everything(model, params, images, ids, valid):
    def loss(params):
        both = _both(model, params, images, ids, valid)
        return _loss_of(both[0], ids, valid), both

    return jax.value_and_grad(loss, has_aux=True)(params)


_other_forward = functools.partial(_jit, static_argnums=0)(_both)


def _forward(model, params, *batch):
    if model == _main()[0] and batch[0].ndim == 4:  # one program for most tests
        return _everything(model, params, *batch)[0][1]
    return _other_forward(model, params, *batch)


def _value_and_grad(model, params, *batch):
    (loss, _), grads = _everything(model, params, *batch)
    return loss, grads


def _flat(tree, is_leaf=None) -> dict:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    }


def _with_param(params: dict, path: str, change) -> dict:
    """A copy of `params` with one leaf changed."""
    head, _, rest = path.partition("/")
    return params | {head: _with_param(params[head], rest, change) if rest else change(params[head])}


def _close(tree, other, atol=1e-6, rtol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol, rtol=rtol), tree, other)


# Table 1

MILLIONS = {  # coca_paper.md §1: ViT, unimodal layers, multimodal layers, text untied, total, total with poolers
    "base": (86.00, 85.05, 113.42, 296.8, 382.8, 401.9),
    "large": (303.57, 151.15, 201.56, 483.8, 787.4, 821.3),
    "giant": (1011.7, 428.5, 571.4, 1180.2, 2192.0, 2255.9),
}


@pytest.mark.parametrize("name", MILLIONS)
def test_parameter_counts_are_table_1(name):
    params, logical = coca.abstract_parameters(coca.Coca(config_lib.variant(name)))

    def count(*parts):
        return sum(math.prod(x.shape) for part in parts for x in jax.tree.leaves(part)) / 1e6

    vit, unimodal, multimodal, text, total, with_poolers = MILLIONS[name]
    image = count(params["image_encoder"])
    words = count(params["unimodal"], params["multimodal"], params["softmax"])
    assert image == pytest.approx(vit, abs=0.06)
    assert count(params["unimodal"]["layers"]) == pytest.approx(unimodal, abs=0.06)
    assert count(params["multimodal"]["layers"]) == pytest.approx(multimodal, abs=0.06)
    assert words == pytest.approx(text, abs=0.11)
    assert image + words == pytest.approx(total, abs=0.1)
    assert count(params) == pytest.approx(with_poolers, abs=0.1)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    # No large parameter is left whole on every device.
    for path, axes in _flat(logical, is_leaf=lambda x: type(x) is tuple).items():
        if math.prod(_flat(params)[path].shape) > 1_000_000:
            assert any(spec(*axes)), path


ENCODERS = {
    "vit": {},
    "conv stem": {"model__image__stem": "conv"},
    "convnet": {"model__image__kind": "convnet"},
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_has_logical_axes_of_its_rank(encoder):
    model, params = _model(**ENCODERS[encoder])
    shapes, logical = coca.abstract_parameters(model)
    axes = _flat(logical, is_leaf=lambda x: type(x) is tuple)
    assert axes.keys() == _flat(shapes).keys()
    for path, leaf in _flat(params).items():
        assert leaf.shape == _flat(shapes)[path].shape and leaf.dtype == _flat(shapes)[path].dtype == jnp.float32
        assert len(axes[path]) == leaf.ndim and all(isinstance(axis, Axis) for axis in axes[path]), path
        spec(*axes[path])  # no collision
        scanned = "/blocks/" in path
        assert (Axis.LAYERS in axes[path]) == scanned
        if scanned:
            assert axes[path][0] is Axis.LAYERS and leaf.shape[0] == 2
    assert type(shapes) is dict


# Encoders


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_maps_images_to_tokens_and_takes_bytes_or_floats(encoder):
    model, params = _model(**ENCODERS[encoder])
    images, _, _ = _batch()
    module = image_encoder.image_encoder(model.config, "encoder")
    weights = np.random.default_rng(0).normal(size=(B, N, D)).astype(np.float32)

    @_jit
    def encode(params, images):
        def weighted(params):
            tokens = module.apply({"params": params}, images)
            return jnp.sum(tokens * weights), tokens

        grads, tokens = jax.grad(weighted, has_aux=True)(params)
        return tokens, grads

    tokens, grads = encode(params["image_encoder"], images)
    assert tokens.shape == (B, N, D) == (B, image_encoder.token_count(model.config.image), D)

    def encoded(images):
        return encode(params["image_encoder"], images)[0]

    floats = _jit(module.apply)({"params": params["image_encoder"]}, images.astype(np.float32) / 255)
    np.testing.assert_allclose(tokens, floats, atol=1e-5)
    np.testing.assert_allclose(tokens[::-1], encoded(images[::-1]), atol=1e-5)
    assert np.abs(tokens - encoded(255 - images)).max() > 1e-2
    _check_reached(params["image_encoder"], grads)


def test_stems_are_convolutions():
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)

    def dense(params, size):
        return params["kernel"].reshape(size, size, -1, D)

    conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    model, params = _main()
    stem = params["image_encoder"]["stem"]
    expected = (
        conv(images, dense(stem["projection"], 8), (8, 8), "VALID") + stem["projection"]["bias"][None, None, None]
    )
    np.testing.assert_allclose(
        image_encoder.PatchStem(model.config).apply({"params": stem}, images), expected, atol=1e-4
    )
    model, params = _model(**ENCODERS["conv stem"])
    x, stem = images, params["image_encoder"]["stem"]
    for i in range(3):
        x = jax.nn.relu(
            conv(x, dense(stem[f"conv_{i}"], 3), (2, 2), "SAME") + stem[f"conv_{i}"]["bias"][None, None, None]
        )
    expected = x @ stem["out"]["kernel"] + stem["out"]["bias"][None, None, None]
    np.testing.assert_allclose(
        image_encoder.ConvStem(model.config).apply({"params": stem}, images), expected, atol=1e-4
    )


def test_precomputed_tokens_stand_for_the_images():
    model, params = _main()
    images, ids, valid = _batch()
    encoder = image_encoder.image_encoder(model.config, "encoder")
    tokens = _jit(encoder.apply)({"params": params["image_encoder"]}, images)
    # To a model that has an encoder …
    _close(_encode_image(model, params, tokens), _encode_image(model, params, images))
    # … and to one that has none.
    bare, bare_params = _model(
        objective__pretraining__unimodal_language_model_weight=1.0,
        model__image__kind="precomputed",
        model__image__tokens=N,
    )
    assert bare_params.keys() == params.keys() - {"image_encoder"}
    rest = {key: value for key, value in params.items() if key != "image_encoder"}
    _close(_forward(bare, rest, tokens, ids, valid), _forward(model, params, images, ids, valid))


# Poolers


def _pooled(kind: str, queries: int, params: dict | None = None, tokens_seed: int = 0, **changes):
    model, fresh = _model(
        model__image__kind="precomputed",
        model__image__tokens=N,
        model__pooler__kind=kind,
        model__pooler__queries=queries,
        **changes,
    )
    tokens = np.random.default_rng(tokens_seed).normal(size=(B, N, D)).astype(np.float32)
    params = fresh if params is None else params
    return _encode_image(model, params, tokens), params, tokens


@functools.partial(_jit, static_argnums=0)
def _encode_image(model, params, images):
    return model.apply({"params": params}, images, method="encode_image")


@pytest.mark.parametrize("kind", ["cascade", "parallel"])
@pytest.mark.parametrize("queries", [0, 1, Q])
def test_pooler_shapes_and_data_flow(kind, queries):
    pooled, params, tokens = _pooled(kind, queries)
    assert pooled.tokens_BQD.shape == (B, queries or N, D)
    assert pooled.embedding_BD.shape == (B, D)
    assert set(params["poolers"]) == ({"generative", "contrastive"} if queries else {"contrastive"})
    assert params["poolers"]["contrastive"]["queries"].shape == (1, D)
    other_tokens, _, _ = _pooled(kind, queries, params, tokens_seed=1)
    assert not np.allclose(other_tokens.embedding_BD, pooled.embedding_BD)
    if not queries:
        np.testing.assert_array_equal(pooled.tokens_BQD, tokens)
        return
    assert params["poolers"]["generative"]["queries"].shape == (queries, D)
    changed, _, _ = _pooled(kind, queries, _with_param(params, "poolers/generative/queries", lambda x: x + 1))
    assert not np.allclose(changed.tokens_BQD, pooled.tokens_BQD)
    # Only in cascade does the contrastive pooler read the generative one's output.
    assert np.allclose(changed.embedding_BD, pooled.embedding_BD) == (kind == "parallel")
    changed, _, _ = _pooled(kind, queries, _with_param(params, "poolers/contrastive/queries", lambda x: x + 1))
    np.testing.assert_array_equal(changed.tokens_BQD, pooled.tokens_BQD)


def test_without_generative_queries_both_kinds_agree():
    cascade, params, _ = _pooled("cascade", 0)
    _close(cascade, _pooled("parallel", 0, params)[0])


def test_a_branch_that_is_off_has_no_pooler():
    def poolers(**changes):
        return set(coca.abstract_parameters(_coca(changes))[0]["poolers"])

    both, contrastive, generative = {"generative", "contrastive"}, {"contrastive"}, {"generative"}
    for kind, alone in (("cascade", both), ("parallel", contrastive)):
        assert poolers(model__pooler__kind=kind, objective__pretraining__captioning_weight=0.0) == alone
        assert poolers(model__pooler__kind=kind, objective__pretraining__contrastive_weight=0.0) == generative


def test_pooler_is_attention_with_a_learned_scale_then_layer_norm():
    pooled, params, tokens = _pooled("parallel", Q)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["poolers"]["generative"])
    a = p["attention"]
    assert a["query"]["kernel"].shape == (D, 2, 2 * D // 2)  # hidden_multiple = 2: twice the width, over two heads
    scale = np.log1p(np.exp(a["scale"])) / np.log(2) / np.sqrt(D)
    heads = _np_attention(a, np.broadcast_to(p["queries"], (B, Q, D)), tokens, scale=scale)
    np.testing.assert_allclose(pooled.tokens_BQD, _np_layer_norm(p["norm"], heads), atol=1e-5)


# The block against an independent implementation in float64


def _np_layer_norm(p, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def _np_attention(p, x, source, scale=None, mask=None, cap=50.0):
    def project(name, y):
        return np.einsum("bld,dhk->blhk", y, p[name]["kernel"]) + p[name]["bias"]

    q, k, v = project("query", x), project("key", source), project("value", source)
    logits = np.einsum("blhk,bshk->bhls", q * (q.shape[-1] ** -0.5 if scale is None else scale), k)
    logits = cap * np.tanh(logits / cap)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhls,bshk,hkd->bld", weights, v, p["out"]["kernel"]) + p["out"]["bias"]


def test_decoder_equals_a_plain_float64_one():
    model, params = _main()
    images, ids, valid = _batch()
    output, (logits, unimodal_logits) = _forward(model, params, images, ids, valid)
    pooled = np.asarray(_encode_image(model, params, images).tokens_BQD, np.float64)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def stack(p, x, valid, source=None):
        length = x.shape[1]
        mask = np.zeros((len(x), 1, length, length), bool)
        for b, t, s in np.ndindex(len(x), length, length):
            mask[b, 0, t, s] = s <= t and (valid[b, s] or s == t)
        for layer in range(2):
            block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], p["layers"]["blocks"])
            h = _np_layer_norm(block["attention_norm"], x)
            x = x + _np_attention(block["attention"], h, h, mask=mask)
            if source is not None:
                x = x + _np_attention(block["cross_attention"], _np_layer_norm(block["cross_norm"], x), source)
            h = np.maximum(
                _np_layer_norm(block["mlp_norm"], x) @ block["mlp"]["up"]["kernel"] + block["mlp"]["up"]["bias"], 0
            )
            x = x + h @ block["mlp"]["down"]["kernel"] + block["mlp"]["down"]["bias"]
        return x

    u = p["unimodal"]
    frequencies = 1e4 ** -(np.arange(D // 2) / (D // 2 - 1))
    angles = np.arange(L)[:, None] * frequencies
    x = u["embedding"][ids] * np.sqrt(D) + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    cls = np.broadcast_to(u["cls_embedding"] * np.sqrt(D), (B, 1, D))
    x = stack(u, np.concatenate([x, cls], axis=1), np.pad(valid, ((0, 0), (0, 1)), constant_values=True))
    embedding = _np_layer_norm(u["norm"], x[:, -1])
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    np.testing.assert_allclose(output.text_embedding_BE, embedding, atol=1e-5)

    def project(x):
        return x @ p["softmax"]["kernel"] + p["softmax"]["bias"]

    np.testing.assert_allclose(unimodal_logits, project(x[:, :L]), atol=1e-4, rtol=1e-4)
    x = stack(p["multimodal"], x[:, :L], valid, pooled)
    np.testing.assert_allclose(logits, project(_np_layer_norm(p["multimodal"]["norm"], x)), atol=1e-4, rtol=1e-4)


# Text: pads, causality, CLS


def test_what_stands_under_a_pad_changes_nothing():
    model, params = _main()
    images, ids, valid = _batch()
    output, logits = _forward(model, params, images, ids, valid)
    loss, grads = _value_and_grad(model, params, images, ids, valid)
    rng = np.random.default_rng(5)
    for other in (np.where(valid, ids, 0), np.where(valid, ids, rng.integers(0, V, ids.shape))):
        other = other.astype(np.int32)
        found, found_logits = _forward(model, params, images, other, valid)
        np.testing.assert_array_equal(found.text_embedding_BE, output.text_embedding_BE)
        np.testing.assert_array_equal(found.image_embedding_BE, output.image_embedding_BE)
        for a, b in zip(found_logits, logits, strict=True):
            np.testing.assert_array_equal(a[valid], b[valid])
            assert not np.array_equal(a, b)  # the ids really changed
        other_loss, other_grads = _value_and_grad(model, params, images, other, valid)
        assert other_loss == loss
        _close(other_grads, grads, atol=1e-7)
    # The same text with one token more is another text.
    longer = valid.copy()
    longer[1, LENGTHS[1]] = True
    assert not np.allclose(
        _forward(model, params, images, ids, longer)[0].text_embedding_BE[1], output.text_embedding_BE[1]
    )


def test_logits_depend_on_their_own_and_earlier_tokens_alone():
    model, params = _main()
    images, ids, valid = _batch()
    valid = np.ones_like(valid)
    _, logits = _forward(model, params, images, ids, valid)
    for t in range(L):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        for a, b in zip(_forward(model, params, images, changed, valid)[1], logits, strict=True):
            differs = (np.abs(a - b) > 1e-4).any(axis=-1)
            np.testing.assert_array_equal(a[:, :t], b[:, :t])
            assert differs[:, t].all() and differs[:, t:].any(axis=0).all()


def test_the_text_embedding_depends_on_every_valid_token():
    model, params = _main()
    images, ids, valid = _batch()
    embedding = _forward(model, params, images, ids, valid)[0].text_embedding_BE
    for t in range(L):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        found = _forward(model, params, images, changed, valid)[0].text_embedding_BE
        np.testing.assert_array_equal((np.abs(found - embedding) > 1e-5).any(axis=-1), valid[:, t])


def test_branches_read_what_they_should():
    model, params = _main()
    images, ids, valid = _batch()
    output, (logits, unimodal_logits) = _forward(model, params, images, ids, valid)
    assert output.image_embedding_BE.shape == output.text_embedding_BE.shape == (B, D)
    assert logits.shape == unimodal_logits.shape == (B, L, V) and logits.dtype == jnp.float32
    for embedding in (output.image_embedding_BE, output.text_embedding_BE):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, rtol=1e-6)
    other, (other_logits, other_unimodal_logits) = _forward(model, params, images[::-1], ids, valid)
    np.testing.assert_array_equal(other.text_embedding_BE, output.text_embedding_BE)
    np.testing.assert_array_equal(other_unimodal_logits, unimodal_logits)
    assert (np.abs(other_logits - logits) > 1e-4).any(axis=-1).all()  # every position sees the image
    np.testing.assert_allclose(other.image_embedding_BE, output.image_embedding_BE[::-1], atol=1e-6)

    def embed(method, *args):
        return _jit(functools.partial(model.apply, method=method))({"params": params}, *args)

    _close(embed("embed_images", images), output.image_embedding_BE)
    _close(embed("embed_texts", ids, valid), output.text_embedding_BE)


def test_causal_mask():
    mask = text_decoder.causal_mask(jnp.array([[True, True, False, True]]))
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    np.testing.assert_array_equal(mask, np.array(expected, bool)[None, None])


def test_sinusoidal_positions_of_odd_width():
    table = text_decoder.sinusoidal_positions(6, 7)
    assert table.shape == (6, 7) and table.dtype == np.float32
    np.testing.assert_array_equal(table[0], [0, 0, 0, 1, 1, 1, 0])
    assert len({tuple(row) for row in table}) == 6


# Gradients


def _check_reached(params, grads):
    grads = _flat(grads)
    assert grads.keys() == _flat(params).keys()
    for path, grad in grads.items():
        assert np.isfinite(grad).all(), path
        per_layer = grad.reshape(2 if "blocks/" in path else 1, -1)
        # A bias on the keys shifts all of a query's logits alike; only the logit cap lets it matter at all.
        assert (np.abs(per_layer).max(axis=1) > (0 if path.endswith("key/bias") else 1e-6)).all(), path


def test_gradients_reach_every_parameter():
    model, params = _main()
    _check_reached(params, _value_and_grad(model, params, *_batch())[1])


def test_temperature_has_a_lower_bound_that_lets_its_gradient_through():
    model, params = _main()
    batch = _batch()
    assert _forward(model, params, *batch)[0].temperature == pytest.approx(0.07)
    at_bound, grads_at_bound = _value_and_grad(model, params | {"temperature": jnp.float32(0.01)}, *batch)
    for low in (0.001, -0.5):
        below = params | {"temperature": jnp.float32(low)}
        assert _forward(model, below, *batch)[0].temperature == pytest.approx(0.01)
        loss, grads = _value_and_grad(model, below, *batch)
        assert loss == pytest.approx(float(at_bound), rel=1e-5)
        assert (
            grads["temperature"] == pytest.approx(float(grads_at_bound["temperature"]), rel=1e-4)
            and grads["temperature"]
        )


def test_rematerialisation_changes_no_value_and_no_gradient():
    x, tokens = np.random.default_rng(0).normal(size=(2, B, L, D)).astype(np.float32)
    mask = text_decoder.causal_mask(_batch()[2])
    params = _main()[1]

    def run(remat):
        model = _coca({"model__remat": remat})
        stack = block.Stack(model.config, 2, 40, jax.nn.relu, cross=True)

        def loss(p, x):
            return jnp.sum(jnp.sin(stack.apply({"params": p}, x, mask, tokens)[0]))

        traced = _jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(params["multimodal"]["layers"], x)
        whole = _traced(model, params)
        assert str(whole.jaxpr).count("prevent_cse=False") == (0 if remat == "none" else 3)  # one a stack
        return traced.lower().compile()(params["multimodal"]["layers"], x), str(traced.jaxpr)

    expected, plain = run("none")
    sizes = [len(plain)]
    for remat in ("dots", "attention", "full"):
        found, jaxpr = run(remat)
        _close(found, expected, atol=1e-6, rtol=1e-5)
        assert "remat" in jaxpr and "remat" not in plain
        sizes.append(len(jaxpr))
    assert len(set(sizes)) == 4  # each keeps something else


@pytest.mark.parametrize("remat, widths", [("none", 22), ("dots", 9), ("attention", 5), ("full", 1)])
def test_what_a_block_keeps_for_the_backward_pass(remat, widths):
    # Residuals of a layer and token, in widths of the model; none keeps the attention logits besides.
    tokens, width, layer_count = 50, 64, 3
    config = config_lib.ModelConfig(width=width, heads=4, dtype="float32", remat=remat)
    stack = block.Stack(config, layer_count, 4 * width, jax.nn.relu)
    x = jnp.zeros((2, tokens, width))
    params = jax.eval_shape(lambda: meta.unbox(stack.init(jax.random.key(0), x)))["params"]
    pullback = jax.eval_shape(lambda p, x: jax.vjp(lambda p, x: stack.apply({"params": p}, x)[0], p, x)[1], params, x)
    parameters = {leaf.shape for leaf in jax.tree.leaves(params)}
    kept = [
        leaf.size
        for leaf in jax.tree.leaves(pullback)
        if leaf.shape[0] == layer_count
        and leaf.shape not in parameters
        and leaf.shape[-1] != tokens
        and leaf.size >= layer_count * 2 * tokens * width
    ]
    assert sum(kept) / (layer_count * 2 * tokens * width) == widths


# Branches


def _traced(model, params) -> jax.stages.Traced:
    return jax.jit(lambda p: _loss(model, p, *_batch())).trace(params)


@functools.cache
def _jaxpr_and_flops(**changes) -> tuple[str, float]:
    traced = _traced(*_model(**changes))
    return str(traced.jaxpr), traced.lower().cost_analysis()["flops"]


def test_captioning_weight_0_is_a_dual_encoder():
    full, full_params = _main()
    changes = {"objective__pretraining__captioning_weight": 0.0}
    model, params = _model(**changes)
    assert params.keys() == full_params.keys() - {"multimodal", "softmax"}
    output, logits = _forward(model, params, *_batch())
    assert output.hidden_BLD is output.unimodal_hidden_BLD is output.softmax is None and logits == [None, None]
    shared = {key: full_params[key] for key in params}
    expected, _ = _forward(full, full_params, *_batch())
    found, _ = _forward(model, shared, *_batch())
    _close(
        (found.image_embedding_BE, found.text_embedding_BE), (expected.image_embedding_BE, expected.text_embedding_BE)
    )
    (jaxpr, flops), (full_jaxpr, full_flops) = _jaxpr_and_flops(**changes), _jaxpr_and_flops()
    assert f"{D},{V}]" in full_jaxpr and f"{D},{V}]" not in jaxpr
    assert flops < 0.75 * full_flops


def test_contrastive_weight_0_is_a_captioner():
    full, full_params = _main()
    changes = {"objective__pretraining__contrastive_weight": 0.0}
    model, params = _model(**changes)
    removed = full_params.keys() - params.keys()
    assert removed == {"temperature"}
    assert set(params["unimodal"]) == {"embedding", "layers"} and set(params["poolers"]) == {"generative"}
    output, (_logits, _) = _forward(model, params, *_batch())
    assert output.image_embedding_BE is output.text_embedding_BE is output.temperature is None
    shared = full_params | {
        "unimodal": {key: full_params["unimodal"][key] for key in ("embedding", "layers")},
        "poolers": {"generative": full_params["poolers"]["generative"]},
    }
    del shared["temperature"]
    _close(_forward(model, shared, *_batch())[1][0], _forward(full, full_params, *_batch())[1][0], atol=1e-5)
    (jaxpr, flops), (full_jaxpr, full_flops) = _jaxpr_and_flops(**changes), _jaxpr_and_flops()
    with_cls = f"f32[{B},{L + 1},{D}]"
    assert with_cls in full_jaxpr and with_cls not in jaxpr
    assert flops < 0.95 * full_flops


def test_the_language_model_alone_has_no_image_branch():
    model, params = _model(
        objective__pretraining__contrastive_weight=0.0,
        objective__pretraining__captioning_weight=0.0,
        objective__pretraining__unimodal_language_model_weight=1.0,
    )
    assert params.keys() == {"unimodal", "softmax"}
    _output, (logits, unimodal_logits) = jax.eval_shape(functools.partial(_both, model), params, *_batch())
    assert logits is None and unimodal_logits.shape == (B, L, V)


# Precision, softmax, logit cap


def test_bfloat16_computes_close_to_float32_over_float32_parameters():
    model, params = _main()
    half, half_params = _model(objective__pretraining__unimodal_language_model_weight=1.0, model__dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(half_params)} == {jnp.dtype("float32")}
    expected, expected_logits = _forward(model, params, *_batch())
    found, logits = _forward(half, params, *_batch())
    assert found.hidden_BLD.dtype == jnp.bfloat16
    assert found.image_embedding_BE.dtype == found.text_embedding_BE.dtype == logits[0].dtype == jnp.float32
    distance = np.abs(logits[0] - expected_logits[0]).max()
    assert 1e-4 < distance < 0.1 * np.std(expected_logits[0])
    for name in ("image_embedding_BE", "text_embedding_BE"):
        cosine = np.sum(getattr(found, name) * getattr(expected, name), axis=-1)
        assert (cosine > 0.999).all()


def test_tied_softmax_reads_the_embedding():
    model, params = _model(model__text__tied_softmax=True)
    assert set(params["softmax"]) == {"bias"}
    output, (logits, _) = _forward(model, params, *_batch())
    np.testing.assert_array_equal(output.softmax.kernel_DV, params["unimodal"]["embedding"].T)
    expected = output.hidden_BLD @ params["unimodal"]["embedding"].T + params["softmax"]["bias"][None, None]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("cap", [0.0, 2.0])
def test_the_cap_bounds_attention_logits(cap):
    query = jnp.array([1000.0, -1000.0]).reshape(1, 2, 1, 1)
    kv = attention.KeysValues(jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1), jnp.array([1.0, 0.0]).reshape(1, 2, 1, 1))
    weights = attention.attend(query, kv, None, cap)[0, :, 0, 0]  # of the first key
    share = 1 / (1 + np.exp(-2 * cap)) if cap else 1.0
    np.testing.assert_allclose(weights, [share, 1 - share], rtol=1e-5)
    assert (attention.attend(query, kv, jnp.array([False, True]), cap) == 0).all()  # a mask is stronger than the cap


def test_the_model_uses_its_cap():
    model, params = _main()
    assert model.config.logit_cap == 50
    tight = _coca({"model__logit_cap": 0.01})
    params = _with_param(params, "multimodal/layers/blocks/cross_attention/query/kernel", lambda x: x * 100)
    a, b = (_forward(m, params, *_batch())[1][0] for m in (model, tight))
    assert np.abs(a - b).max() > 1e-2


# Initialisation

WIDE = {
    "model.width": 64,
    "model.heads": 4,
    "model.image.mlp": 96,
    "model.text.mlp": 160,
    "model.text.vocabulary_size": 200,
}
_init = functools.partial(_jit, static_argnums=0)(coca.init)


def _key(seed: int) -> jax.Array:
    return jax.random.key(seed, impl="rbg")  # compiles faster than the default


def _expected_deviation(path: str, shape: tuple[int, ...], width: int) -> float:
    parts = path.split("/")
    if parts[-1] == "kernel":
        if "depthwise" in path:
            return 1 / 7  # LeCun: 49 inputs each
        if parts[0] == "softmax":
            return math.sqrt(2 / sum(shape))  # Xavier
        inputs = 2 if parts[-2] == "out" and "attention" in path else 1  # [H, K] to D, else D to …
        shape = shape[1:] if "blocks/" in path else shape
        return math.sqrt(1 / (math.prod(shape[:inputs]) + math.prod(shape[inputs:])))  # Xavier · 2^-0.5
    return {"queries": width**-0.5, "embedding": width**-0.5, "cls_embedding": width**-0.5, "positions": 0.02}[
        parts[-1]
    ]


def _check_deviations(params: dict, width: int):
    for path, leaf in _flat(params).items():
        name = path.split("/")[-1]
        if name == "bias" or path.endswith("attention/scale"):
            assert not leaf.any(), path
        elif name == "scale":
            assert (leaf == 1).all(), path
        elif name == "temperature":
            assert leaf == pytest.approx(0.07)
        else:
            tolerance = 4 / math.sqrt(2 * leaf.size)  # four standard errors
            assert np.std(leaf) == pytest.approx(_expected_deviation(path, leaf.shape, width), rel=tolerance), path
            assert abs(np.mean(leaf)) < 5 * np.std(leaf) / math.sqrt(leaf.size), path
            if "blocks/" in path:
                assert not np.allclose(leaf[0], leaf[1]), path


def test_initialisation():
    model = _coca(WIDE)
    first, again, other = (_flat(_init(model, _key(seed))) for seed in (0, 0, 1))
    _check_deviations(_init(model, _key(0)), 64)
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[path])
        constant = path.split("/")[-1] in ("bias", "scale", "temperature")
        assert np.array_equal(leaf, other[path]) == constant, path


@pytest.mark.parametrize("encoder", ["conv stem", "convnet"])
def test_initialisation_of_encoders(encoder):
    config = _coca(WIDE | ENCODERS[encoder]).config
    module = image_encoder.image_encoder(config, "encoder")
    init = _jit(lambda key: meta.unbox(module.init(key, jnp.zeros((1, 16, 16, 3)))["params"]))
    _check_deviations(init(_key(0)), 64)


@pytest.mark.parametrize("grid", [4, 8, 18])  # small ones by a matrix of the positions, others by a convolution
def test_a_depthwise_convolution_is_that_of_flax(grid):
    images = jax.random.normal(_key(0), (2, grid, grid, 6))
    reference = nn.Conv(6, (7, 7), feature_group_count=6)
    params = jax.tree.map(lambda leaf: jax.random.normal(_key(1), leaf.shape), reference.init(_key(2), images))

    def squares(module):
        return _jit(jax.value_and_grad(lambda params, images: jnp.sum(module.apply(params, images) ** 2), (0, 1)))

    wanted = squares(reference)(params, images)
    found = squares(image_encoder.DepthwiseConv())(params, images)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-2), found, wanted)
