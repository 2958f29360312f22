"""Pictures of every kind that a folder of the world holds, whole and damaged."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, features

from coca_jax.data.images import decode as images
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from tests.data.builders import encoded


def ramp(width=40, height=20):
    x = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, width, 3))
    return Image.fromarray(np.ascontiguousarray(x))


def pixel(image, x=1, y=1):
    return image.getpixel((x, y))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    turned = images.decode(encoded(ramp(), "JPEG", exif=exif.tobytes()))
    assert turned.size == (20, 40) and pixel(turned, 10, 2)[0] < 40 < 200 < pixel(turned, 10, 37)[0]


def test_transparency_lies_on_white():
    assert pixel(images.decode(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0))))) == (255, 255, 255)
    assert pixel(images.decode(encoded(Image.new("LA", (4, 4), (0, 128))))) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert pixel(images.decode(encoded(palette))) == (10, 20, 30)
    assert pixel(images.decode(encoded(palette, transparency=1))) == (255, 255, 255)
    assert pixel(images.decode(encoded(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)))) == (255,) * 3


def test_cmyk_and_sixteen_bit():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = pixel(images.decode(encoded(cmyk, "JPEG")))
    assert red > 240 and green < 20 and blue < 20
    deep = Image.fromarray(np.full((4, 4), 32_896, np.uint16))
    assert pixel(images.decode(encoded(deep))) == (128, 128, 128)
    assert pixel(images.decode(encoded(deep, "TIFF"))) == (128, 128, 128)
    assert pixel(images.decode(encoded(Image.new("1", (4, 4), 1)))) == (255, 255, 255)
    assert pixel(images.decode(encoded(Image.new("RGB", (9, 9), (0, 90, 0)), "WEBP", lossless=True))) == (0, 90, 0)


def bomb(side=60_000):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data, cause",
    [
        (bomb(), "too many pixels"),
        (bomb(9_000), "too many pixels"),  # below Pillow's own limit
        (encoded(ramp(200, 200), "JPEG")[:900], "damaged image"),
        (encoded(ramp(200, 200))[:150], "damaged image"),
        (b"<html>404</html>", "not an image"),
        (b"", "not an image"),
        (encoded(ramp(), "PPM"), "not an image"),  # fewer formats, fewer parsers exposed
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unusable_bytes_are_told_apart(data, cause):
    with pytest.raises(BadRecord) as caught:
        images.decode(data)
    assert caught.value.cause == cause


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow remarks on damage, too
def test_flipped_bytes_never_escape_as_another_error():
    rng = np.random.default_rng(0)
    for original in (
        encoded(ramp()),
        encoded(ramp(), "JPEG"),
        encoded(ramp(), "WEBP"),
        encoded(ramp(), "GIF"),
        encoded(ramp(), "TIFF"),
        encoded(ramp(), "BMP"),
    ):
        for _ in range(150):
            data = bytearray(original)
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
            with contextlib.suppress(BadRecord):
                assert images.decode(bytes(data)).mode == "RGB"


def test_evaluation_takes_the_middle_square():
    array = images.resize_and_crop(ramp(80, 20), 10)
    assert array.shape == (10, 10, 3) and array.dtype == np.uint8
    assert 90 < array.min() < array.max() < 165 and images.resize_and_crop(ramp(7, 9), 24).shape == (24, 24, 3)


def test_a_large_jpeg_may_be_reduced_but_not_too_far():
    data = encoded(ramp(800, 400), "JPEG")
    assert images.decode(data).size == (800, 400)
    assert images.decode(data, smallest=100).size == (200, 100)
    assert images.decode(data, smallest=300).size == (800, 400)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_block_spoils_no_picture(kind):
    assert images.decode(encoded(ramp(), kind, exif=b"Exif\0\0" + b"\xff" * 20)).size == (40, 20)


def test_of_an_animation_only_the_first_frame_is_touched():
    for kind in ("GIF", "WEBP"):
        frames = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(4)]
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert images.decode(data).getcolors() == [(256, (0, 0, 0))]
        assert images.decode(data[: len(data) * 3 // 4] if kind == "GIF" else data).getcolors() == [(256, (0, 0, 0))]


def test_a_jpeg_of_endless_scans_is_refused():
    data = encoded(ramp(), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 2)]
    assert images.decode(data).size == (40, 20)
    with pytest.raises(BadRecord, match="damaged image"):
        images.decode(data[:start] + scan * 300 + data[start:])
    baseline = encoded(ramp(), "JPEG")  # what looks like scans within metadata counts for nothing
    assert images.decode(baseline[:2] + b"\xff\xfe\x02\x5a" + b"\xff\xda" * 300 + baseline[2:]).size == (40, 20)


@pytest.mark.parametrize("mode, kind", [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
def test_wide_greys_take_no_more_memory_than_others(mode, kind, monkeypatch):
    values = np.linspace(0, 65_535, 1_000 * 500).reshape(500, 1_000)
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    data = encoded(Image.fromarray(values.astype(dtype)), kind)
    image = images.open_header(data)
    assert image.mode == mode
    image.load()
    tracemalloc.start()
    try:
        found = np.asarray(images.to_rgb(image))[:, :, 0]
        assert tracemalloc.get_traced_memory()[1] < 11 * values.size  # numpy's: 4 bytes a value, the greys, these three
    finally:
        tracemalloc.stop()
    expected = np.clip(values.astype(dtype) * (255 / 65_535) + 0.5, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(images, "MAX_PIXELS", 2_000_000)
    assert images.decode(data).size == (1_000, 500)
    monkeypatch.setattr(images, "MAX_PIXELS", 1_999_999)
    with pytest.raises(BadRecord, match="too many pixels"):
        images.decode(data)


def test_a_lack_of_memory_is_no_damage_of_the_picture(monkeypatch):
    def exhausted(image):
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", exhausted)
    with pytest.raises(MemoryError):
        images.decode(encoded(ramp()))


def test_text_chunks_of_a_png_cannot_fill_the_memory():
    data = bomb(20)
    text = zlib.compress(b"a" * (4 * 1024 * 1024))
    chunk = struct.pack(">I", len(text) + 3) + b"zTXta\0\0" + text
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    with pytest.raises(BadRecord, match="damaged image"):
        images.decode(data[:33] + chunk + data[33:])


def test_pictures_come_as_arrays_pil_images_and_paths(tmp_path):
    array = np.full((8, 8, 3), 51, np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(array)))
    for thing in (
        array,
        array / 255,
        array[:, :, 0],
        array[:, :, :1],
        Image.fromarray(array),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        np.float32(array / 255),
        (array / 255).tolist(),
    ):
        assert (images.load_image(thing, 4) == 51).all()


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(CocaError, match=r"page\.jpg cannot be read as an image"):
        images.load_image(tmp_path / "page.jpg", 4)
    with pytest.raises(CocaError, match=r"absent\.png cannot be read \(No such file"):
        images.load_image(tmp_path / "absent.png", 4)
    with pytest.raises(CocaError, match=r"the image cannot be read as an image \(not an image\)"):
        images.load_image(b"<html>", 4)
    for wrong in ((x for x in "ab"), None, {"a": 1}, [[1, 2], [3]], object()):
        with pytest.raises(CocaError, match="is not an image: give a PIL image, a path"):
            images.load_image(wrong, 4)
    for wrong in (
        np.zeros((2, 3, 4, 5), np.uint8),
        np.zeros((8, 8), np.int64),
        np.full((8, 8, 3), 255.0),
        np.full((4, 4), np.nan),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(CocaError):
            images.load_image(wrong, 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])  # whose headers open without the rest
def test_a_truncated_pil_image_is_refused_in_a_sentence(kind, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path = tmp_path / "cut.image"
    path.write_bytes(encoded(noise, kind)[:-2_000])
    with Image.open(path) as image, pytest.raises(CocaError, match=r"the PIL image .*cut\.image cannot be decoded"):
        images.load_image(image, 4)
    closed = Image.open(io.BytesIO(encoded(noise)))
    closed.close()
    with pytest.raises(CocaError, match="the PIL image given cannot be decoded"):
        images.load_image(closed, 4)


def test_avif_is_decoded_whatever_its_name(tmp_path, monkeypatch):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = encoded(Image.new("RGB", (40, 20), (10, 200, 30)), "AVIF", quality=100)
    assert (
        images.decode(data).size == (40, 20) and abs(np.subtract(pixel(images.decode(data)), (10, 200, 30))).max() < 6
    )
    (tmp_path / "a.jpg").write_bytes(data)
    assert images.load_image(tmp_path / "a.jpg", 8).shape == (8, 8, 3)
    with pytest.raises(BadRecord, match="damaged image"):
        images.decode(data[: len(data) // 2])
    monkeypatch.setattr(images, "MAX_PIXELS", 799)
    with pytest.raises(BadRecord, match="too many pixels"):
        images.decode(data)
