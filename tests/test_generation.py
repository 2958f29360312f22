import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coca_jax import config as config_lib
from coca_jax import generation
from coca_jax.models import coca

PAD, EOS, BOS, V, L, B = 0, 1, 3, 24, 9, 6

# Tests compile much and compute little.
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def _model() -> tuple[coca.Coca, dict]:
    """A tiny captioner with random parameters, eager enough to end some captions early."""
    values = config_lib.default()
    values.model.update(width=16, heads=2, dtype="float32")
    values.model.image.update(kind="precomputed", tokens=4)
    values.model.pooler.update(queries=3, hidden_multiple=1)
    values.model.text.update(vocabulary_size=V, length=L, unimodal_layers=2, multimodal_layers=2, mlp=24)
    model = coca.build(config_lib.from_config_dict(values))
    rng = np.random.default_rng(3)
    kinds = {"scale": (1, 0.1), "bias": (0, 0.1), "temperature": (0.07, 0), "queries": (0, 1)}

    def parameter(path, leaf):
        mean, deviation = kinds.get(path[-1].key, (0, 0.3))
        return (mean + rng.normal(0, 1, leaf.shape) * deviation).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(parameter, coca.abstract_parameters(model)[0])


def _with_bias(params: dict, **biases: float) -> dict:
    bias = params["softmax"]["bias"].copy()
    for name, value in biases.items():
        bias[{"pad": PAD, "eos": EOS, "bos": BOS}[name]] = value
    return params | {"softmax": params["softmax"] | {"bias": bias}}


def _images(batch: int = B) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, 4, 16)).astype(np.float32) * 2


@_jit
def _greedy(params, images):
    return generation.greedy(_model()[0], params, images, bos_id=BOS, eos_id=EOS, pad_id=PAD)


@_jit
def _logits(params, images, ids, valid):
    """Of every position, without a cache."""
    output = _model()[0].apply({"params": params}, images, ids, valid)
    return output.softmax.logits(output.hidden_BLD)


@_jit
def _extend(params, ids, index, cache, tokens):
    return _model()[0].apply({"params": params}, ids, index, cache, tokens, method="extend")


@_jit
def _pool(params, images):
    return _model()[0].apply({"params": params}, images, method="encode_image").tokens_BQD


def _plain_greedy(params, images) -> np.ndarray:
    """Greedy decoding that runs the whole model again for every token."""
    ids = np.full((len(images), L), PAD, np.int32)
    ids[:, 0] = BOS
    ended = np.zeros(len(images), bool)
    for t in range(1, L):
        valid = np.broadcast_to(np.arange(L) < t, ids.shape)
        logits = np.array(_logits(params, images, ids, valid)[:, t - 1])
        logits[:, [BOS, PAD]] = -np.inf
        ids[:, t] = np.where(ended, PAD, logits.argmax(axis=-1))
        ended |= ids[:, t] == EOS
    return ids


def _varied() -> tuple[dict, np.ndarray]:
    """Parameters whose captions of `_images()` end at different lengths, some never."""
    params = _model()[1]
    for bias in np.arange(0, 6, 0.25):
        candidate = _with_bias(params, eos=bias)
        ids = np.asarray(_greedy(candidate, _images()))
        ends = [list(row).index(EOS) if EOS in row else L for row in ids]
        if len(set(ends)) >= 3:
            return candidate, ids
    raise AssertionError("no bias gives captions of three lengths")


def test_greedy_equals_an_uncached_run_of_every_prefix():
    params, ids = _varied()
    assert ids.shape == (B, L) and ids.dtype == np.int32
    assert len({tuple(row) for row in ids.tolist()}) > 1
    np.testing.assert_array_equal(ids, _plain_greedy(params, _images()))


def test_a_caption_is_bos_tokens_eos_pads():
    for row in _varied()[1].tolist():
        end = row.index(EOS) if EOS in row else L
        assert row[0] == BOS
        assert not {BOS, PAD, EOS} & set(row[1:end])
        assert set(row[end + 1 :]) <= {PAD}


@pytest.mark.parametrize("prompt", [1, 4])
def test_cached_logits_equal_uncached_ones(prompt):
    params = _model()[1]
    ids = np.random.default_rng(1).integers(0, V, (B, L)).astype(np.int32)
    expected = _logits(params, _images(), ids, np.ones_like(ids, bool))
    cache = coca.empty_cache(_model()[0].config, B, L)
    tokens, found, index = _pool(params, _images()), [], 0
    while index < L:
        step = prompt if index == 0 else 1
        logits, cache = _extend(params, ids[:, index : index + step], index, cache, tokens if index == 0 else None)
        found.append(logits)
        index += step
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, atol=1e-5, rtol=1e-5)
    assert np.std(expected) > 0.1


def test_eos_ends_a_caption_at_once():
    ids = _greedy(_with_bias(_model()[1], eos=1e4), _images())
    np.testing.assert_array_equal(ids, [[BOS, EOS] + [PAD] * (L - 2)] * B)


def test_a_caption_that_never_ends_fills_the_length():
    ids = np.asarray(_greedy(_with_bias(_model()[1], eos=-1e4), _images()))
    assert (ids[:, 0] == BOS).all() and not np.isin(ids[:, 1:], [PAD, EOS, BOS]).any()


def test_bos_and_pads_are_never_generated():
    params, ids = _varied()
    forced = _with_bias(params, bos=1e4, pad=1e4, eos=params["softmax"]["bias"][EOS])
    np.testing.assert_array_equal(_greedy(forced, _images()), ids)


def test_a_caption_does_not_depend_on_its_batch():
    params, ids = _varied()
    np.testing.assert_array_equal(_greedy(params, _images()[::-1]), ids[::-1])
    # Each among copies of another caption, which may end earlier or later than itself.
    for i in range(B):
        mixed = np.concatenate([_images()[i : i + 1], np.repeat(_images()[:1], B - 1, axis=0)])
        np.testing.assert_array_equal(_greedy(params, mixed)[0], ids[i])
    np.testing.assert_array_equal(_greedy(params, _images()[:1]), ids[:1])


def test_the_loop_stops_when_every_caption_has_ended():
    calls = []

    class Counting:
        config = _model()[0].config

        def apply(self, variables, *args, method):
            if method == "extend":
                jax.debug.callback(lambda index: calls.append(int(index)), args[1])
            return _model()[0].apply(variables, *args, method=method)

    special = dict(bos_id=BOS, eos_id=EOS, pad_id=PAD)
    for eos, steps in ((1e4, 1), (-1e4, L - 1)):
        calls.clear()
        params = _with_bias(_model()[1], eos=eos)
        _jit(lambda params, images: generation.greedy(Counting(), params, images, **special))(params, _images())
        jax.effects_barrier()
        assert sorted(calls) == list(range(steps))


def test_no_image_gives_no_caption():
    assert _greedy(_model()[1], _images(0)).shape == (0, L)
