"""Counted FLOPs against products worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from coca_jax.config import Config, ImageEncoderConfig, ModelConfig, PoolerConfig, TextConfig, TrainConfig
from coca_jax.trainer import flops, train_step


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products():
    assert flops.count(jnp.dot, array(3, 4), array(4, 5)) == 2 * 3 * 4 * 5
    assert (
        flops.count(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), array(7, 3, 4), array(7, 5, 4)) == 2 * 7 * 3 * 4 * 5
    )
    assert flops.count(jnp.add, array(3, 4), array(3, 4)) == 0


def test_convolution():
    def convolve(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (2, 2), "SAME", feature_group_count=2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert flops.count(convolve, array(2, 8, 8, 6), array(3, 3, 3, 4)) == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)


def layers(x, kernels, policy=jax.checkpoint_policies.nothing_saveable):
    body = jax.checkpoint(lambda x, kernel: (jnp.sin(x @ kernel), None), policy=policy, prevent_cse=False)
    return jnp.sum(jax.lax.scan(body, x, kernels)[0])


def test_a_scan_counts_its_body_as_often_as_it_runs():
    one = 2 * 4 * 8 * 8
    assert flops.count(layers, array(4, 8), array(5, 8, 8)) == 5 * one


def test_what_is_rematerialised_counts_again():
    one = 2 * 4 * 8 * 8

    def gradient(policy):
        return flops.count(jax.grad(lambda k, x: layers(x, k, policy)), array(5, 8, 8), array(4, 8))

    # The gradient of each product is two. That of the first layer's input is not asked for, but scanned with the others'.
    assert gradient(jax.checkpoint_policies.everything_saveable) == 5 * 3 * one
    assert gradient(jax.checkpoint_policies.nothing_saveable) == 5 * 4 * one


def test_branches_loops_and_what_nobody_needs():
    def square(x):
        return x @ x

    one = 2 * 4**3
    assert (
        flops.count(lambda x: jax.lax.cond(x[0, 0] > 0, square, lambda x: square(square(x)), x), array(4, 4)) == 2 * one
    )
    assert flops.count(lambda x: (square(x), x)[1], array(4, 4)) == 0

    def forever(x):
        return jax.lax.while_loop(lambda x: x[0, 0] > 0, square, x)

    with pytest.raises(ValueError, match="while loop"):
        flops.count(forever, array(4, 4))


def test_a_sharded_function_counts_on_all_devices():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

    def product(axes):
        return jax.shard_map(
            jnp.dot,
            in_specs=(PartitionSpec(axes), PartitionSpec()),
            out_specs=PartitionSpec(axes),
            axis_names=set(axes),
        )

    with jax.set_mesh(mesh):
        for axes in (("data",), ("data", "fsdp")):
            assert flops.count(product(axes), array(16, 4), array(4, 5)) == 2 * 16 * 4 * 5


def test_the_model_needs_what_arithmetic_says():
    """The forward pass of a pair, by `coca_paper.md` section 7's way of counting, with poolers four times as wide."""
    width, image_mlp, text_mlp, length, vocabulary, queries, batch = 16, 48, 40, 6, 50, 4, 8
    config = Config(
        model=ModelConfig(
            width=width,
            heads=2,
            remat="full",
            image=ImageEncoderConfig(size=12, patch=4, layers=3, mlp=image_mlp),
            pooler=PoolerConfig(queries=queries),
            text=TextConfig(vocabulary, length, unimodal_layers=2, multimodal_layers=5, mlp=text_mlp),
        ),
        train=TrainConfig(batch_size=batch),
    )
    tokens = 9

    def block(count, mlp):
        return 2 * count * (4 * width**2 + 2 * width * mlp) + 4 * count**2 * width

    cross = 2 * (2 * length + 2 * queries) * width**2 + 4 * length * queries * width

    def pooler(count, read):
        return 4 * (2 * (2 * count + 2 * read) * width**2 + 4 * count * read * width)

    forward = (
        2 * tokens * 48 * width
        + 3 * block(tokens, image_mlp)
        + pooler(queries, tokens)
        + pooler(1, queries)
        + 2 * block(length + 1, text_mlp)
        + 5 * (block(length, text_mlp) + cross)
        + 2 * length * width * vocabulary
        + 2 * 2 * batch * width
    )
    assert train_step.model_flops(config) == 3 * batch * forward
    assert 4 / 3 > train_step.step_flops(config) / train_step.model_flops(config) > 1.2
