import functools

import jax
import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.generation import likelihood
from coca_jax.trainer.model_info import model_digest
from tests import tiny
from tests.evaluation import tiny_coca
from tests.evaluation.tiny_coca import TEXTS


@functools.cache
def forward(coca):
    return jax.jit(coca._model.apply)


def brute_force(coca, pictures, texts) -> np.ndarray:
    """Each pair on its own, through the forward pass that trains."""
    ids = np.tile(coca.vocabulary.encode(texts, 24), (len(pictures), 1))
    valid, images = ids != coca.vocabulary.pad_id, np.repeat(pictures, len(texts), axis=0)
    output = forward(coca)({"params": coca._params}, images, ids, valid)
    log_p = np.asarray(jax.nn.log_softmax(output.softmax.logits(output.hidden_BLD)))
    own = np.take_along_axis(log_p[:, :-1], ids[:, 1:, None], axis=2)[..., 0]
    return (own * valid[:, 1:]).sum(axis=1).reshape(len(pictures), len(texts))


@pytest.mark.parametrize("slots, logits, count", [(128, 2**25, 6), (48, 60, 5), (1, 1, 2)])
def test_likelihoods_equal_brute_force(slots, logits, count, monkeypatch):
    monkeypatch.setattr(likelihood, "_SLOTS", slots)  # several texts at once, two, one
    monkeypatch.setattr(likelihood, "_LOGITS", logits)
    coca, pictures = tiny_coca.coca(), tiny_coca.pictures(3)
    ids = coca.vocabulary.encode(TEXTS[:count], 24)
    pad_id, expected = coca.vocabulary.pad_id, brute_force(coca, pictures, TEXTS)[:, :count]
    scored = jax.jit(lambda params: likelihood.log_likelihoods(coca._model, params, pictures, ids, pad_id))
    np.testing.assert_allclose(scored(coca._params), expected, rtol=1e-4, atol=1e-4)


def test_the_model_s_own_method_cuts_pads_and_divides_by_tokens():
    coca, pictures = tiny_coca.coca(), tiny_coca.pictures(3)
    expected = brute_force(coca, pictures, TEXTS)[:, :4]
    np.testing.assert_allclose(coca.caption_log_likelihoods(pictures, TEXTS[:4]), expected, rtol=1e-4, atol=1e-4)
    tokens = (coca.vocabulary.encode(TEXTS[:4], 24) != coca.vocabulary.pad_id).sum(axis=1) - 1
    found = coca.caption_log_likelihoods(pictures, TEXTS[:4], per_token=True)
    np.testing.assert_allclose(found, expected / tokens, rtol=1e-4, atol=1e-4)
    with pytest.raises(CocaError, match=r"takes .* tokens"):
        coca.caption_log_likelihoods(pictures, ["a red thing " * 20])
    assert coca.caption_log_likelihoods(pictures, ["a red thing " * 20], long_text="truncate").shape == (3, 1)


def test_a_mesh_gives_the_same_likelihoods_and_digest():
    alone, spread = tiny_coca.coca(), tiny_coca.coca(tiny.mesh(2, 2, 1))
    pictures = tiny_coca.pictures(3)
    found = spread.caption_log_likelihoods(pictures, TEXTS[:4])
    np.testing.assert_allclose(found, alone.caption_log_likelihoods(pictures, TEXTS[:4]), rtol=1e-4, atol=1e-4)
    assert spread.digest == alone.digest and len(alone.digest) == 16


def test_the_digest_changes_with_anything_that_makes_the_model():
    coca = tiny_coca.coca()
    model, params, vocabulary = coca.config.model, coca._params, coca.vocabulary.model_bytes
    bias = np.asarray(params["softmax"]["bias"])
    swapped = params["softmax"] | {"bias": bias[[1, 0, *range(2, len(bias))]]}
    tiny_change = params["softmax"] | {"bias": np.nextafter(bias, np.float32(9))}
    digests = {
        model_digest(model, params, vocabulary),
        model_digest(model, params | {"softmax": swapped}, vocabulary),
        model_digest(model, params | {"softmax": tiny_change}, vocabulary),
        model_digest(model, params, vocabulary + b"x"),
    }
    assert len(digests) == 4
