"""RandAugment: the operations against their definitions, the strengths against the published ones."""

import numpy as np
import pytest
from PIL import Image

from coca_jax.data.images import randaugment
from coca_jax.data.images.randaugment import OPERATIONS


def noise(size=56, low=40, high=200):
    return np.random.default_rng(0).integers(low, high, (size, size, 3), np.uint8)


def applied(name, pixels, magnitude, sign=1.0):
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), magnitude / 10, sign))


def test_there_are_the_papers_fourteen():
    assert len(OPERATIONS) == 14 and np.array_equal(applied("identity", noise(), 9), noise())


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_magnitude_five_enhances_nothing(name):
    assert np.abs(applied(name, noise(), 5).astype(int) - noise()).max() <= 1
    assert np.abs(applied(name, noise(), 20).astype(int) - noise()).mean() > 5


def test_strengths_are_the_published_ones():
    pixels = noise()
    assert np.allclose(applied("brightness", pixels, 10), np.minimum(255, pixels * 1.9), atol=1)
    assert np.array_equal(applied("posterize", pixels, 10), pixels & 0xF0)
    assert np.array_equal(applied("posterize", pixels, 20), pixels)
    assert np.array_equal(applied("solarize", pixels, 5), np.where(pixels < 128, pixels, 255 - pixels))
    assert np.array_equal(applied("solarize", pixels, 10), pixels)
    moved = applied("translate_x", pixels, 10, 1.0)  # 25 of 56 pixels, as 100 of 224
    assert np.array_equal(moved[:, :31], pixels[:, 25:]) and (moved[:, 31:] == 128).all()
    moved = applied("translate_y", pixels, 10, -1.0)
    assert np.array_equal(moved[25:], pixels[:31]) and (moved[:25] == 128).all()
    assert np.array_equal(applied("rotate", pixels, 30), np.rot90(pixels))
    low, high = applied("auto_contrast", pixels, 3).min(), applied("auto_contrast", pixels, 3).max()
    assert (low, high) == (0, 255) and len(np.unique(applied("equalize", pixels, 3))) > 100


def test_shears_keep_a_line_and_push_the_others_by_their_distance():
    stripe = np.zeros((40, 40, 3), np.uint8)
    stripe[:, 20] = 255
    sheared = applied("shear_x", stripe, 10)
    assert [int(sheared[row, :, 0].argmax() - 20) for row in (0, 10, 20)] == [0, -3, -6]
    assert np.array_equal(applied("shear_y", stripe.swapaxes(0, 1), 10), sheared.swapaxes(0, 1))


def test_chance_comes_from_the_generator_and_layers_are_drawn_apart():
    def result(layers, seed):
        return randaugment.randaugment(noise(), layers, 9, np.random.default_rng(seed))

    assert np.array_equal(result(2, 1), result(2, 1)) and not np.array_equal(result(2, 1), result(2, 2))
    assert np.array_equal(result(0, 1), noise()) and len({result(1, seed).tobytes() for seed in range(80)}) >= 17


def test_every_magnitude_leaves_a_picture():
    for magnitude in (0, 1, 15, 30):
        for name in OPERATIONS:
            pixels = applied(name, noise(), magnitude, -1.0)
            assert pixels.shape == (56, 56, 3) and pixels.dtype == np.uint8
