import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType

from coca_jax.distributed import sharding
from coca_jax.distributed.mesh import MESH_AXES
from coca_jax.objectives.losses import contrastive


def _embeddings(n: int, width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n, width))
    y += x  # some pairs are found, some are not
    return tuple((z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32) for z in (x, y))


def _numpy_contrastive(x, y, temperature) -> float:
    """Paper Eq. 2 in float64, a term at a time, averaged over the directions."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    total = 0.0
    for i in range(len(x)):
        to_text = np.array([x[i] @ y[j] for j in range(len(y))]) / temperature
        to_image = np.array([y[i] @ x[j] for j in range(len(x))]) / temperature
        total -= np.log(np.exp(to_text[i]) / np.exp(to_text).sum()) + np.log(
            np.exp(to_image[i]) / np.exp(to_image).sum()
        )
    return total / (2 * len(x))


def _dense_contrastive(x, y, temperature):
    logits = jnp.einsum("ie,je->ij", x, y, precision="highest") / temperature
    rows, columns = jax.nn.log_softmax(logits, axis=1), jax.nn.log_softmax(logits, axis=0)
    return -(jnp.trace(rows) + jnp.trace(columns)) / (2 * len(x))


_contrastive = jax.jit(contrastive.contrastive_loss)


@jax.jit
def _value_and_grads(x, y, temperature):
    return jax.value_and_grad(lambda *a: contrastive.contrastive_loss(*a)[0], argnums=(0, 1, 2))(x, y, temperature)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrastive_equals_the_papers_formula_in_float64(n, temperature):
    x, y = _embeddings(n)
    loss, accuracy = _contrastive(x, y, temperature)
    assert loss.dtype == jnp.float32 and loss.shape == accuracy.shape == ()
    assert float(loss) == pytest.approx(_numpy_contrastive(x, y, temperature), rel=2e-6, abs=2e-6)
    assert float(accuracy) == pytest.approx(np.mean((x @ y.T).argmax(axis=1) == np.arange(n)))


def test_contrastive_gradients_equal_the_dense_ones():
    x, y = _embeddings(9)
    _, found = _value_and_grads(x, y, jnp.float32(0.07))
    expected = jax.jit(jax.grad(_dense_contrastive, argnums=(0, 1, 2)))(x, y, jnp.float32(0.07))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), found, expected)
    assert all(np.abs(g).max() > 1e-3 for g in found)


@pytest.mark.parametrize("n", [2, 8, 100])
def test_equal_similarities_cost_log_n(n):
    x = np.tile(_embeddings(1)[0], (n, 1))
    assert float(_contrastive(x, x, 0.07)[0]) == pytest.approx(np.log(n), rel=1e-5)


def test_collapsed_embeddings_are_not_called_accurate():
    x = np.tile(_embeddings(1)[0], (8, 1))
    assert float(_contrastive(x, x, 0.07)[1]) <= 1 / 8


def test_perfect_pairs_cost_nothing_and_large_logits_stay_finite():
    x = np.eye(8, 12, dtype=np.float32)
    loss, accuracy = _contrastive(x, x, 0.001)
    assert 0 <= float(loss) < 1e-6 and accuracy == 1
    assert float(_contrastive(x, np.roll(x, 1, axis=0), 0.001)[0]) == pytest.approx(1000, rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 7, 16])
def test_contrastive_in_chunks_equals_the_papers_formula(chunk):
    x, y = _embeddings(16)
    loss, accuracy = jax.jit(contrastive.contrastive_loss, static_argnums=3)(x, y, 0.07, chunk)
    assert float(loss) == pytest.approx(_numpy_contrastive(x, y, 0.07), rel=2e-6)
    assert float(accuracy) == pytest.approx(np.mean((x @ y.T).argmax(axis=1) == np.arange(16)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (2, 2, 2)], ids=str)
def test_contrastive_on_meshes_equals_one_device(shape):
    x, y = _embeddings(16)
    temperature = jnp.float32(0.07)
    loss, grads = jax.jit(jax.value_and_grad(_dense_contrastive, argnums=(0, 1, 2)))(x, y, temperature)
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    with jax.set_mesh(mesh):

        def put(z):
            return jax.device_put(z, sharding.batch_sharding(mesh))

        sharded = put(x)
        assert sharded.addressable_shards[0].data.shape == (16 // (shape[0] * shape[1]), 12)

        def chunked(*a):
            return contrastive.contrastive_loss(*a, columns_per_chunk=5)  # does not divide the batch

        function = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1, 2), has_aux=True))
        (found, accuracy), found_grads = function(sharded, put(y), temperature)
    np.testing.assert_allclose(found, loss, atol=1e-5, rtol=1e-5)
    assert float(accuracy) == pytest.approx(np.mean((x @ y.T).argmax(axis=1) == np.arange(16)))
    for a, b in zip(found_grads[:2], grads[:2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    # The temperature's is a small difference of sums near 200, where float32 has steps of 1.5e-5.
    np.testing.assert_allclose(found_grads[2], grads[2], atol=1e-4)


def test_similarities_of_all_pairs_never_exist():
    x, y = _embeddings(64)
    grad = jax.jit(jax.grad(lambda *a: contrastive.contrastive_loss(*a, columns_per_chunk=4)[0], argnums=(0, 1)))
    assert (
        tiny.largest(grad.lower(x, y, 0.07).compile().as_text()) <= 17 * 4 * 12 + 64 * 12
    )  # the embeddings' size, not 64 x 64
    mesh = jax.make_mesh((8, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        x, y = jax.device_put((x, y), sharding.batch_sharding(mesh))
        text = grad.lower(x, y, 0.07).compile().as_text()
    assert "f32[8,4]" in text and "f32[16,8,4]" not in text and "f32[8,64]" not in text
