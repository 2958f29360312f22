"""What training and evaluation see of a picture or a clip."""

import io

import numpy as np
import pytest
from PIL import Image

from coca_jax.config import DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.images import decode as images
from coca_jax.data.images import fast_jpeg as fast_images
from coca_jax.data.records.record import BadRecord
from tests.data import builders
from tests.data.builders import encoded


def ramp(width=40, height=20):
    """Dark at the left, bright at the right; red grows downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 1:] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    pixels[:, :, 0] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def seen(data, size=16, seed=0, **source):
    rng = None if seed is None else np.random.default_rng(seed)
    config = builders.source(**source)
    return views.view(data, size, config.dataset, rng, config.augmentation)


@pytest.fixture(params=["fast", "pillow"])
def backend(request, monkeypatch):
    if request.param == "fast" and not fast_images.AVAILABLE:
        pytest.skip("needs the packages of the extra `fast`")
    monkeypatch.setattr(fast_images, "AVAILABLE", request.param == "fast")


@pytest.mark.parametrize("kind", ["none", "random", "resized", "drawing"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_view_depends_on_the_generator_alone(kind, form, backend):
    data = encoded(ramp(), form)
    one, again, other = (seen(data, seed=seed, crop=kind) for seed in (1, 1, 2))
    assert one.shape == (16, 16, 3) and one.dtype == np.uint8 and one.flags.c_contiguous
    assert np.array_equal(one, again) and np.array_equal(one, other) == (kind == "none")
    for seed in range(20):  # nothing is mirrored unless one asks
        view = seen(data, seed=seed, crop=kind)
        assert view[8, 4, 1] < view[8, 11, 1]


def test_the_evaluation_sees_the_middle_whatever_training_does():
    data = encoded(ramp(80, 20))
    plain = images.resize_and_crop(ramp(80, 20), 16)
    loud = dict(crop="drawing", mirror=True, randaugment_layers=3)
    assert np.array_equal(seen(data, seed=None, **loud), plain)
    assert np.abs(seen(data).astype(int) - plain).max() <= 12  # the faster filters see the same square


def test_the_views_of_a_held_out_picture_spread_over_its_longer_side():
    parts = np.zeros((30, 10, 3), np.uint8)
    parts[10:20], parts[20:] = 100, 200
    for data in (encoded(Image.fromarray(parts)), encoded(Image.fromarray(parts.swapaxes(0, 1)))):
        several = views.evaluation_views(data, 4, DatasetConfig(evaluation_crops=3))
        assert several.shape == (3, 4, 4, 3) and np.allclose(several[:, 2, 2, 0], [0, 100, 200], atol=1)
        (one,) = views.evaluation_views(data, 4, DatasetConfig())
        assert np.array_equal(one, several[1]) and np.array_equal(one, views.view(data, 4, DatasetConfig(), None))


def test_a_border_is_cut_off_a_held_out_picture_before_it_is_scaled():
    bordered = np.full((20, 24, 3), (255, 0, 0), np.uint8)
    bordered[2:-2, 2:-2] = inside = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    assert np.array_equal(seen(encoded(Image.fromarray(bordered)), seed=None, crop_border=2), inside[:, 2:-2])
    small = np.full((4, 4, 3), 9, np.uint8)  # all border, and a picture all the same
    assert np.array_equal(seen(encoded(Image.fromarray(small)), seed=None, crop_border=2), np.full((16, 16, 3), 9))


def test_half_of_the_pictures_are_mirrored():
    data = encoded(ramp())
    turned = sum(seen(data, seed=seed, mirror=True)[8, 4, 1] > 127 for seed in range(60))
    assert 20 <= turned <= 40


def test_crops_reach_all_edges_and_hold_their_share(backend):
    pixels = np.arange(100, dtype=np.uint8)[None, :, None].repeat(50, 0).repeat(3, 2)
    crops = [seen(encoded(Image.fromarray(pixels)), 32, seed, crop="random")[0, :, 0] for seed in range(80)]
    firsts, widths = [int(crop[0]) for crop in crops], [int(crop[-1]) - int(crop[0]) for crop in crops]
    assert min(firsts) <= 4 and max(int(crop[-1]) for crop in crops) >= 94
    assert 37 <= min(widths) <= 42 and 46 <= max(widths) <= 50


def test_a_resized_part_has_its_share_of_the_area_any_place_and_a_bounded_aspect(backend):
    places = np.zeros((60, 90, 3), np.uint8)  # red tells how far to the right a pixel lies, green how far down
    places[..., 0], places[..., 1] = np.arange(90)[None, :], np.arange(60)[:, None]
    views = [seen(encoded(Image.fromarray(places)), 32, seed, crop="resized", crop_area=0.4) for seed in range(150)]
    corners = np.array([[*view[0, 0, :2], *view[-1, -1, :2]] for view in views], float)
    wide, high = corners[:, 2] - corners[:, 0] + 2, corners[:, 3] - corners[:, 1] + 2
    areas, aspects = wide * high / (60 * 90), wide / high
    assert 0.36 < areas.min() < 0.5 and areas.max() > 0.85
    assert aspects.min() < 0.85 and 1.25 < aspects[areas < 0.6].max() < 1.45  # the largest parts are all of the height
    assert corners[:, :2].min() <= 1 and corners[:, 2].max() >= 88 and corners[:, 3].max() >= 58


def test_a_drawing_keeps_its_white_paper():
    paper = encoded(Image.new("RGB", (64, 64), (255, 255, 255)))
    for seed in range(5):
        assert seen(paper, 32, seed, crop="drawing").min() == 255
    grey = encoded(Image.new("RGB", (64, 64), (128, 128, 128)))
    shades = [seen(grey, 32, seed, crop="drawing")[16, 16] for seed in range(40)]
    assert 104 <= np.min(shades) < 115 and 140 < np.max(shades) <= 150


@pytest.mark.parametrize("width", [20, 40, 90, 300])
def test_both_ways_of_resizing_agree(width, monkeypatch):
    if not fast_images.AVAILABLE:
        pytest.skip("needs the packages of the extra `fast`")
    data = encoded(ramp(width, width), "JPEG", quality=95)
    fast = seen(data, 32, crop="random")
    monkeypatch.setattr(fast_images, "AVAILABLE", False)
    assert np.abs(fast.astype(int) - seen(data, 32, crop="random")).max() <= 14


def test_the_faster_decoder_gives_nearly_pillows_pixels_or_leaves_it_to_pillow():
    if not fast_images.AVAILABLE:
        pytest.skip("needs the packages of the extra `fast`")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((244, 180), Image.Resampling.BICUBIC)
    for options in ({}, {"quality": 95, "subsampling": 0}, {"progressive": True}):
        data = encoded(picture, "JPEG", **options)
        for smallest in (180, 90, 60, 23):
            pillow = np.asarray(images.decode(data, smallest=smallest))
            fast = fast_images.decode_jpeg(data, smallest)
            assert fast.shape == pillow.shape and np.abs(fast.astype(int) - pillow).mean() < 2
    exif = Image.Exif()
    exif[0x0112] = 3
    for data in (
        encoded(picture),
        encoded(picture, "JPEG", exif=exif.tobytes()),
        encoded(picture, "JPEG")[:1500],
        encoded(Image.new("CMYK", (8, 8)), "JPEG"),
    ):
        assert fast_images.decode_jpeg(data, 8) is None
    with pytest.raises(BadRecord, match="damaged image"):
        seen(encoded(picture, "JPEG")[:1500], crop="random")
    with pytest.raises(BadRecord, match="not an image"):
        seen(b"\xff\xd8<html>", crop="random")
    upside = seen(encoded(ramp(), "JPEG", exif=exif.tobytes()), crop="random")
    assert upside[8, 4, 1] > upside[8, 11, 1]


def test_the_faster_decoder_asks_pillow_about_unusual_files_only(monkeypatch):
    if not fast_images.AVAILABLE:
        pytest.skip("needs the packages of the extra `fast`")
    asked = []
    open_header = images.open_header
    monkeypatch.setattr(images, "open_header", lambda *args: asked.append(args) or open_header(*args))
    picture = ramp()
    for options in ({}, {"subsampling": 0}, {"icc_profile": b"\xff\xda" * 50}, {"comment": b"Exif"}):
        assert fast_images.decode_jpeg(encoded(picture, "JPEG", **options), 8) is not None and not asked
    assert fast_images.decode_jpeg(encoded(picture.convert("L"), "JPEG"), 8) is not None and not asked
    exif = Image.Exif()
    exif[0x010E] = "a description"
    for options in ({"progressive": True}, {"exif": exif.tobytes()}):
        asked.clear()
        assert fast_images.decode_jpeg(encoded(picture, "JPEG", **options), 8) is not None and asked
    plain = encoded(picture, "JPEG")
    frame = plain.index(b"\xff\xc0")
    huge = plain[: frame + 5] + (30_000).to_bytes(2) * 2 + plain[frame + 9 :]
    with pytest.raises(BadRecord, match="too many pixels"):
        fast_images.decode_jpeg(huge, 8)
    for end in range(len(plain)):  # wherever it breaks off
        try:
            seen(plain[:end], crop="random")
        except BadRecord:
            continue
        assert end > len(plain) - 10


def gif(colors):
    file = io.BytesIO()
    pictures = [Image.new("RGB", (24, 16), color) for color in colors]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    return file.getvalue()


def test_a_gif_is_a_picture_unless_frames_are_asked_for():
    data = gif([(i * 30, 0, 0) for i in range(8)])
    assert seen(data, seed=None).shape == (16, 16, 3) and seen(data, seed=None).max() == 0
    pytest.importorskip("av", reason="needs PyAV (the extra `video`)")
    assert seen(data, seed=None, frames=4)[:, 8, 8, 0].tolist() == [30, 90, 150, 210]


def test_a_picture_stands_still_where_frames_are_asked_for():
    stack = seen(encoded(ramp()), crop="random", frames=3)
    assert stack.shape == (3, 16, 16, 3) and (stack == stack[0]).all()
