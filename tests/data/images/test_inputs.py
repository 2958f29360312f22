"""What a model takes of an image: pixels, or stored tokens, which are checked before they are read."""

import contextlib
import io

import numpy as np
import pytest

from coca_jax.config import DatasetConfig, ImageEncoderConfig, ModelConfig, from_config_dict
from coca_jax.data.images.inputs import decode_input, decode_tokens, input_dtype, input_shape, load_input
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from tests.data import builders

TOKENS = ModelConfig(width=6, image=ImageEncoderConfig(kind="precomputed", tokens=4))
PIXELS = ModelConfig(image=ImageEncoderConfig(size=8, patch=4))
SHAPE = (4, 6)


def array(dtype=np.float32, shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stored_tokens_come_as_float32_whatever_their_form(dtype, order):
    stored = np.asarray(array(dtype), order=order)
    found = decode_input(builders.npy(stored), TOKENS, DatasetConfig(), np.random.default_rng(0))
    assert found.dtype == np.float32 == input_dtype(TOKENS) and found.shape == SHAPE == input_shape(TOKENS)
    assert np.array_equal(found, stored)


def test_pixels_are_the_view():
    found = decode_input(builders.picture(9), PIXELS, DatasetConfig())
    assert found.dtype == np.uint8 == input_dtype(PIXELS) and found.shape == (8, 8, 3) == input_shape(PIXELS)
    assert (found == 9).all() and input_shape(PIXELS, 5) == (5, 8, 8, 3)
    assert (load_input(builders.picture(9), PIXELS) == 9).all()


class Opened:
    """An object whose unpickling would be seen."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def _header(text: str) -> bytes:
    data = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


def _zipped() -> bytes:
    file = io.BytesIO()
    np.savez(file, array())
    return file.getvalue()


@pytest.mark.parametrize(
    "data, cause",
    [
        (builders.npy(array(shape=(5, 6))), r"of shape \(5, 6\), the model takes \(4, 6\)"),
        (builders.npy(array(shape=(24,))), r"of shape \(24,\)"),
        (builders.npy(array(np.float64)), "of type float64, not float16 or float32"),
        (builders.npy(array(np.int32)), "of type int32"),
        (builders.npy(np.full(SHAPE, None, object)), "of type object"),
        (builders.npy(np.full(SHAPE, Opened(), object)), "of type object"),
        (builders.npy(np.full(SHAPE, np.nan, np.float32)), "not finite"),
        (builders.npy(np.full(SHAPE, np.inf, np.float16)), "not finite"),
        (builders.npy(array())[:-1], "damaged .npy file"),
        (builders.npy(array())[:40], "damaged .npy file"),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6)"), "damaged .npy file"),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 6), }"), "damaged .npy file"),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 6), }"), "of shape"),
        (b"\x93NUMPY\x09\x09" + bytes(200), "damaged .npy file"),
        (builders.picture(9), r"not stored tokens \(a .npy file\)"),
        (_zipped(), r"not stored tokens \(a .npy file\)"),
        (b"", r"not stored tokens \(a .npy file\)"),
    ],
)
def test_other_bytes_are_bad_records_by_their_cause(data, cause):
    with pytest.raises(BadRecord, match=cause):
        decode_tokens(data, SHAPE)


def test_damaged_headers_never_escape_as_another_error():
    rng, whole = np.random.default_rng(0), builders.npy(array())
    for _ in range(500):
        data = bytearray(whole)
        for place in rng.integers(0, 128, 3):
            data[place] = rng.integers(256)
        with contextlib.suppress(BadRecord):
            assert decode_tokens(bytes(data), SHAPE).shape == SHAPE


def test_tokens_are_given_as_files_bytes_and_arrays(tmp_path):
    stored = array(np.float16)
    (tmp_path / "a.npy").write_bytes(builders.npy(stored))
    for form in (tmp_path / "a.npy", str(tmp_path / "a.npy"), builders.npy(stored), stored, stored.tolist()):
        assert np.array_equal(load_input(form, TOKENS), stored.astype(np.float32))
    (tmp_path / "b.npy").write_bytes(builders.picture(9))
    with pytest.raises(CocaError, match=r"b\.npy cannot be read as stored tokens \(not stored tokens"):
        load_input(tmp_path / "b.npy", TOKENS)
    with pytest.raises(CocaError, match=r"none\.npy cannot be read \(No such file"):
        load_input(tmp_path / "none.npy", TOKENS)
    for form in (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 7), np.float32), np.zeros(SHAPE, np.int64), None):
        with pytest.raises(CocaError, match=r"takes stored tokens, float \(4, 6\), for an image"):
            load_input(form, TOKENS)


@pytest.mark.parametrize(
    "data, message",
    [
        ({}, r"takes stored tokens: data\.dataset must name records"),
        (
            {"dataset": {"format": "tars", "path": "x", "frames": 4}},
            r"data\.dataset must name records .* without frames",
        ),
        (
            {"dataset": {"format": "tars", "path": "x"}, "augmentation": {"mirror": True}},
            r"data\.augmentation\.mirror has no effect on the stored tokens",
        ),
    ],
)
def test_data_that_cannot_give_tokens_is_refused_before_anything_is_read(data, message):
    values = {"model": {"image": {"kind": "precomputed", "tokens": 4}}, "data": data}
    with pytest.raises(CocaError, match=message):
        from_config_dict(values)
    assert from_config_dict(values, reads_data=False).model.image.tokens == 4  # for `plan`
    stored = {"dataset": {"format": "tars", "path": "x"}}
    assert from_config_dict(values | {"data": stored}).data.dataset.path == "x"
