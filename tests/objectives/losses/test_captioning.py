import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType

from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import MESH_AXES
from coca_jax.objectives.losses import captioning


def _text(batch: int = 3, length: int = 10, width: int = 5, vocabulary: int = 11, seed: int = 0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(batch, length, width)).astype(np.float32)
    kernel = rng.normal(size=(width, vocabulary)).astype(np.float32)
    bias = rng.normal(size=vocabulary).astype(np.float32)
    labels = rng.integers(0, vocabulary, (batch, length)).astype(np.int32)
    mask = np.arange(length) < np.array([[length], [4], [1]])[:batch]
    return hidden, kernel, bias, labels, mask


def _captioning_loss(*arguments, positions_per_chunk=8):
    """(loss, accuracy), divided as training divides: by the number of labels of the whole batch."""
    loss_B, right_B = captioning.captioning_sums(*arguments, positions_per_chunk=positions_per_chunk)
    count = jnp.maximum(jnp.sum(arguments[-1]), 1).astype(jnp.float32)
    return jnp.sum(loss_B) / count, jnp.sum(right_B) / count


def _naive_captioning(hidden, kernel, bias, labels, mask):
    logits = jnp.einsum("bld,dv->blv", hidden, kernel) + bias[None, None]
    own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(mask, own, 0)) / jnp.sum(mask)


_naive = jax.jit(jax.value_and_grad(_naive_captioning, argnums=(0, 1, 2)))


@pytest.mark.parametrize("chunk", [1, 3, 5, 64])
def test_captioning_equals_full_logits(chunk):
    args = _text()

    def chunked(*a):
        return _captioning_loss(*a, positions_per_chunk=chunk)[0]

    found, grads = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1, 2)))(*args)
    expected, expected_grads = _naive(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), grads, expected_grads)
    hidden, kernel, bias, labels, mask = args
    right = (hidden @ kernel + bias).argmax(-1) == labels
    np.testing.assert_allclose(_captioning_loss(*args, positions_per_chunk=chunk)[1], right[mask].mean(), rtol=1e-6)


def test_uniform_predictions_cost_log_v():
    hidden, kernel, bias, labels, mask = _text()
    loss, _ = _captioning_loss(hidden, kernel * 0, bias * 0, labels, mask)
    np.testing.assert_allclose(loss, np.log(11), rtol=1e-6)


def test_each_unmasked_token_weighs_the_same():
    # The denominator is the global token count: not the mean of the captions' means.
    hidden, kernel, bias, labels, mask = _text()
    loss = jax.jit(_captioning_loss)
    parts = [loss(hidden[i : i + 1], kernel, bias, labels[i : i + 1], mask[i : i + 1])[0] for i in range(3)]
    total = loss(hidden, kernel, bias, labels, mask)[0]
    np.testing.assert_allclose(total, np.average(parts, weights=mask.sum(axis=1)), rtol=1e-6)
    assert abs(total - np.mean(parts)) > 1e-2


def test_masked_positions_count_for_nothing():
    hidden, kernel, bias, labels, mask = _text()
    loss = jax.jit(jax.value_and_grad(lambda *a: _captioning_loss(*a, mask)[0], argnums=(0, 1, 2)))
    found, grads = loss(hidden, kernel, bias, labels)
    other, other_grads = loss(
        np.where(mask[..., None], hidden, 100.0), kernel, bias, np.where(mask, labels, (labels + 1) % 11)
    )
    assert found == other
    assert not grads[0][~mask].any() and grads[0][mask].any(axis=-1).all()
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    changed = labels.copy()
    changed[0, 3] = (changed[0, 3] + 1) % 11
    assert loss(hidden, kernel, bias, changed)[0] != found


def test_an_empty_mask_costs_nothing():
    hidden, kernel, bias, labels, mask = _text()
    loss, right = _captioning_loss(hidden, kernel, bias, labels, mask & False)
    assert loss == 0 and right == 0


def test_full_logits_never_exist():
    hidden, kernel, bias, labels, mask = _text(batch=2, length=24, vocabulary=100)
    grad = jax.grad(lambda *a: _captioning_loss(*a, labels, mask, positions_per_chunk=4)[0], argnums=(0, 1, 2))
    # One chunk's logits, where all are 2 x 24 x 100.
    assert tiny.largest(jax.jit(grad).lower(hidden, kernel, bias).compile().as_text()) <= 2 * 4 * 100


def test_captioning_on_a_mesh_equals_one_device():
    rng = np.random.default_rng(1)
    hidden, kernel, bias, labels, _ = _text(batch=8, length=9, vocabulary=16)
    mask = np.arange(9) < rng.integers(1, 9, (8, 1))
    grad = jax.jit(
        jax.value_and_grad(lambda *a: _captioning_loss(*a, labels, mask, positions_per_chunk=4)[0], argnums=(0, 1, 2))
    )
    expected, expected_grads = grad(hidden, kernel, bias)
    mesh = jax.make_mesh((2, 2, 2), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        axis = sharding.Axis

        def put(x, *axes):
            return jax.device_put(x, sharding.shardings(mesh, axes))

        found, grads = grad(
            put(hidden, axis.BATCH), put(kernel, axis.LENGTH, axis.VOCABULARY), put(bias, axis.VOCABULARY)
        )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), grads, expected_grads)


def test_the_output_projection_crosses_the_network_once_a_step():
    hidden, kernel, bias, labels, mask = _text(batch=8, length=24, width=16, vocabulary=64)
    mesh = jax.make_mesh((1, 8, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    axis = sharding.Axis

    def put(x, *axes):
        return jax.device_put(x, sharding.shardings(mesh, axes))

    kernel, bias = put(kernel, axis.WIDTH, axis.VOCABULARY), put(bias, axis.VOCABULARY)
    rows = (hidden, labels, np.broadcast_to(mask[:1], (8, 24)))
    hidden, labels, mask = jax.device_put(rows, sharding.batch_sharding(mesh))
    grad = jax.grad(lambda *a: _captioning_loss(*a, labels, mask, positions_per_chunk=4)[0], argnums=(0, 1, 2))
    with jax.set_mesh(mesh):
        text = jax.jit(grad).lower(hidden, kernel, bias).compile().as_text()
    computation, found = "", []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            computation = line.split()[0]
        collective = re.search(r"= .*f32\[(?:16,64|64,16)\].* (all-gather|all-reduce|reduce-scatter)\(", line)
        if collective:
            found.append((computation, collective[1]))
    # Gathered once, its gradient summed once: not in the loop over six chunks.
    assert sorted(found) == [("ENTRY", "all-gather"), ("ENTRY", "all-reduce")]


PAD, EOS, BOS = 0, 1, 3


def _captions() -> jnp.ndarray:
    return jnp.array([[BOS, 7, 8, 9, EOS, PAD, PAD], [BOS, 7, EOS, PAD, PAD, PAD, PAD], [BOS, 5, 6, 7, 8, 9, EOS]])


def test_labels_are_the_next_tokens_with_eos_once_and_neither_bos_nor_pad():
    ids = _captions()
    labels, mask = captioning.next_tokens(ids, ids != PAD)
    assert labels.shape == mask.shape == ids.shape and mask.dtype == bool
    assert [row[m].tolist() for row, m in zip(np.asarray(labels), np.asarray(mask), strict=True)] == [
        [7, 8, 9, EOS],
        [7, EOS],
        [5, 6, 7, 8, 9, EOS],
    ]
    # Each label stands where its predecessor does.
    for b, t in np.argwhere(np.asarray(mask)):
        assert labels[b, t] == ids[b, t + 1]


def test_a_continuation_is_a_nonempty_suffix():
    ids = _captions()
    _, mask = captioning.next_tokens(ids, ids != PAD)
    for seed in range(50):
        kept = np.asarray(captioning.continuation_mask(mask, jax.random.key(seed)))
        for row, whole in zip(kept, np.asarray(mask), strict=True):
            first = row.argmax()
            np.testing.assert_array_equal(row, whole & (np.arange(len(whole)) >= first))
            assert row.any()


def test_a_continuation_depends_on_the_key_alone():
    mask = jnp.ones((64, 9), bool)
    first, again, other = (captioning.continuation_mask(mask, jax.random.key(k)) for k in (0, 0, 1))
    assert (first == again).all() and not (first == other).all()
    assert len({tuple(row) for row in np.asarray(first).tolist()}) > 3  # each caption has a prefix of its own


@pytest.mark.parametrize("n", [1, 2, 5])
def test_prefixes_cover_0_to_n_minus_1_evenly(n):
    mask = jnp.arange(8)[None].repeat(4000, axis=0) < n
    prefix = n - np.asarray(captioning.continuation_mask(mask, jax.random.key(0))).sum(axis=1)
    counts = np.bincount(prefix, minlength=n)
    assert len(counts) == n
    np.testing.assert_allclose(counts / 4000, 1 / n, atol=0.04)


def test_an_empty_caption_stays_empty():
    assert not captioning.continuation_mask(jnp.zeros((3, 5), bool), jax.random.key(0)).any()
