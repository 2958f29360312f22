"""Clips: which frames are taken, from every container, whole and broken."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from coca_jax.config import DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.images import video
from coca_jax.data.images.video import load_clip
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from tests.data import builders

av = pytest.importorskip("av", reason="needs PyAV (the extra `video`)")


def clip(container="matroska", codec="mpeg4", length=20, size=(48, 32), gop=5, b_frames=0):
    """A clip whose n-th frame is plain with the grey 12 n."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=10, options={"bf": str(b_frames)} if b_frames else {})
        stream.width, stream.height, stream.gop_size, stream.bit_rate = *size, gop, 4_000_000
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(length):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 12 * number % 256, np.uint8), "rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def numbers(stack):
    return np.round(stack[:, 8, 8].mean(-1) / 12).astype(int).tolist()


@pytest.mark.parametrize(
    "container, codec, b_frames",
    [
        ("matroska", "mpeg4", 0),
        ("mp4", "mpeg4", 2),
        ("mov", "mpeg4", 0),
        ("avi", "mpeg4", 0),
        ("webm", "libvpx", 0),
    ],
)
def test_the_middle_of_each_part_is_taken(container, codec, b_frames):
    data = clip(container, codec, b_frames=b_frames)
    assert video.is_clip(data) and not video.is_gif(data)
    stack = video.frames(data, 5, None)
    assert stack.shape == (5, 32, 48, 3) and stack.dtype == np.uint8
    assert numbers(stack) == [2, 6, 10, 14, 18]


def test_jumps_find_the_frames_that_a_walk_finds(monkeypatch):
    data = clip("mp4", length=20, gop=4, b_frames=1)
    for wanted in (2, 3):
        walked = video.frames(data, wanted, None)
        monkeypatch.setattr(video, "_WORTH_A_JUMP", 0)
        assert np.array_equal(video.frames(data, wanted, None), walked)
        monkeypatch.undo()


def test_a_jump_spares_the_frames_between(monkeypatch):
    decoded, check = [], video._check_size
    monkeypatch.setattr(video, "_check_size", lambda thing: (decoded.append(thing), check(thing)))
    data = clip(length=200, gop=10)
    assert numbers(video.frames(data, 2, None)) == [7, 1]  # 88 and 8, as greys are counted modulo 256
    assert len(decoded) < 20


def test_training_takes_any_frame_of_each_part():
    positions = [video.positions(20, 4, np.random.default_rng(seed)) for seed in range(200)]
    for part in range(4):
        assert {drawn[part] for drawn in positions} == set(range(5 * part, 5 * part + 5))
    data = clip()
    one, again = (video.frames(data, 4, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, again) and numbers(one) == video.positions(20, 4, np.random.default_rng(3))


def test_a_short_clip_repeats_frames():
    assert numbers(video.frames(clip(length=3), 6, None)) == [0, 0, 1, 1, 2, 2]
    assert numbers(video.frames(clip(length=1), 2, None)) == [0, 0]


def test_a_clip_is_turned_upright():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        pixels = np.zeros((32, 64, 3), np.uint8)
        pixels[:, 32:] = 255
        output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        output.mux(stream.encode())
    upright, one = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), 1 << 16
    track = file.getvalue().index(b"tkhd")
    quarter = struct.pack(">9I", 0, one, 0, 2**32 - one, 0, 0, 0, 0, 1 << 30)  # what was at the left is on top
    data = file.getvalue()[:track] + file.getvalue()[track:].replace(upright, quarter, 1)
    (frame,) = video.frames(data, 1, None)
    assert frame.shape == (64, 32, 3) and frame[:28].max() < 40 < 215 < frame[36:].min()


def test_a_clip_may_come_out_smaller():
    data = clip(size=(64, 32))
    assert video.frames(data, 2, None, smallest=16).shape == (2, 16, 32, 3)
    assert video.frames(data, 2, None, smallest=40).shape == (2, 32, 64, 3)


def test_of_a_broken_clip_what_can_be_decoded_is_used():
    data = clip(length=40, gop=5)
    assert numbers(video.frames(data[: len(data) * 2 // 3], 4, None))[0] < 8
    hurt = bytearray(data)
    for place in range(len(data) // 3, len(data) // 3 * 2, 11):
        hurt[place] ^= 0x55
    assert video.frames(bytes(hurt), 4, None).shape == (4, 32, 48, 3)
    for wreck in (data[:60], data[:4] + b"\0" * 500, b"\0\0\0\x18ftypmp42" + b"\xff" * 200):
        with pytest.raises(BadRecord, match="damaged clip"):
            video.frames(wreck, 4, None)


def test_clips_too_large_are_refused(monkeypatch):
    data = clip()
    monkeypatch.setattr(video, "MAX_DECODED", 3 * 48 * 32)
    with pytest.raises(BadRecord, match="clip too long"):
        video.frames(data, 4, None)
    monkeypatch.setattr(video, "MAX_PACKETS", 5)
    with pytest.raises(BadRecord, match="clip too long"):
        video.frames(data, 4, None)
    monkeypatch.setattr(video.stills, "MAX_PIXELS", 1000)
    with pytest.raises(BadRecord, match="too many pixels"):
        video.frames(data, 4, None)


def test_without_pyav_a_clip_among_photos_is_a_bad_record_and_a_set_of_clips_is_refused(monkeypatch):
    monkeypatch.setattr(video, "AVAILABLE", False)
    with pytest.raises(BadRecord, match=r'pip install "\.\[video\]"'):
        views.view(clip(), 16, DatasetConfig(), None)
    with pytest.raises(CocaError, match=r'clips of 4 frames; PyAV.*pip install "\.\[video\]"'):
        views.view(clip(), 16, DatasetConfig(frames=4), None)
    still = builders.encoded(Image.new("RGB", (20, 20), (9, 9, 9)))
    assert (load_clip(still, 8, 2) == 9).all()
    with pytest.raises(CocaError, match=r"cannot be read as a clip \(PyAV"):
        load_clip(clip(), 8, 2)


LOOKALIKES = {
    "heic": b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(200),
    "heif": b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic" + bytes(200),
    "avif": b"\0\0\0\x1cftypavif\0\0\0\0mif1avif" + bytes(200),
    "jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
    "text": b"The free lunch of the skip file",
    "m4a": b"\0\0\0\x1cftypM4A \0\0\0\0M4A mp42" + bytes(200),
    "mka": b"\x1aE\xdf\xa3" + bytes(200),
    "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    "empty avi": b"RIFF\x24\0\0\0AVI LIST" + bytes(30),
}


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("kind", LOOKALIKES)
def test_containers_that_look_like_clips_are_bad_records_by_a_true_cause(kind, installed, monkeypatch):
    if not installed:
        monkeypatch.setattr(video, "AVAILABLE", False)
    clips = ("m4a", "mka", "empty avi")
    expected = {
        "heic": "HEIC image (not supported)",
        "heif": "HEIC image (not supported)",
        "avif": "damaged image",
        "jxl": "JPEG XL image (not supported)",
        "jp2": "JPEG 2000 image (not supported)",
    }.get(kind, "not an image")
    if kind in clips:
        expected = "damaged clip" if installed else video.NEEDS_PYAV
    for rng in (None, np.random.default_rng(0)):
        with pytest.raises(BadRecord) as caught:
            views.view(LOOKALIKES[kind], 16, DatasetConfig(), rng)
        assert caught.value.cause == expected


def test_sound_without_video_is_told_apart_from_a_damaged_clip():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with pytest.raises(BadRecord, match="file without video"):
        video.frames(file.getvalue(), 1)


def test_clips_are_taken_in_every_natural_form(tmp_path):
    data, still = clip(), np.full((20, 24, 3), 60, np.uint8)
    (tmp_path / "a.mkv").write_bytes(data)
    decoded = [frame for frame in video.frames(data, 20)]
    for form in (data, str(tmp_path / "a.mkv"), tmp_path / "a.mkv"):
        assert numbers(load_clip(form, 16, 5)) == [2, 6, 10, 14, 18]
    for form in (decoded, np.stack(decoded), iter(decoded), (Image.fromarray(frame) for frame in decoded)):
        assert numbers(load_clip(form, 16, np.int64(5))) == [2, 6, 10, 14, 18]
    for form in (still, Image.fromarray(still), [still], builders.encoded(Image.fromarray(still))):
        assert (load_clip(form, 16, 3) == 60).all()


def test_what_is_no_clip_is_refused_in_a_sentence(tmp_path):
    for form, message in {
        7: "a int is not a clip",
        (): "without a frame",
        ("a", "b"): "the image a cannot be read",
        b"<html>": r"the clip cannot be read as a clip \(not an image\)",
        tmp_path: "cannot be read",
        str(tmp_path / "none.mp4"): r"none\.mp4 cannot be read \(No such file",
    }.items():
        with pytest.raises(CocaError, match=message):
            load_clip(form, 16, 4)


def test_a_clip_is_seen_through_one_crop():
    data = clip(length=1, size=(96, 64))
    loud = builders.source(frames=4, crop="random", mirror=True, randaugment_layers=2)
    stack = views.view(data, 16, loud.dataset, np.random.default_rng(0), loud.augmentation)
    assert stack.shape == (4, 16, 16, 3) and (stack == stack[0]).all()
    assert views.view(clip(), 16, DatasetConfig(), None)[8, 8, 0] // 12 in (9, 10)  # one frame: the middle
    assert (
        len({views.view(clip(), 16, DatasetConfig(), np.random.default_rng(seed)).tobytes() for seed in range(9)}) > 3
    )


def test_real_clips(shared_data):
    paths = sorted((shared_data / "data/asl_clips/asl_gestures").glob("*.mkv"))
    if not paths:
        pytest.skip("no clips among the shared test data")
    data = paths[0].read_bytes()
    stack = video.frames(data, 16, None)
    with av.open(io.BytesIO(data)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert stack.shape == (16, 480, 640, 3)
    assert all((a == every[i]).all() for a, i in zip(stack, video.positions(len(every), 16, None), strict=True))


def test_views_take_turns_with_the_frames_and_spread_over_the_longer_side():
    several = video.decode_views(clip(), 32, 5, 2, 3)
    assert several.shape == (6, 5, 32, 32, 3) and several.dtype == np.uint8
    assert [numbers(view) for view in several] == [[1, 5, 9, 13, 17]] * 3 + [[3, 7, 11, 15, 19]] * 3
    still = np.zeros((4, 12, 3), np.uint8)
    still[:, 4:8], still[:, 8:] = 100, 200
    gif = io.BytesIO()
    Image.fromarray(still).save(gif, "GIF")
    left, middle, right = video.decode_views(gif.getvalue(), 4, 1, 1, 3)[:, 0, 2, 2, 0].tolist()
    assert left < 20 and 80 < middle < 120 and right > 180
    png, still = builders.picture(7), DatasetConfig(frames=2, evaluation_clips=2, evaluation_crops=2)
    assert np.array_equal(
        views.evaluation_views(png, 8, still), np.repeat(video.decode_clip(png, 8, 2)[None], 4, axis=0)
    )
    dataset = DatasetConfig(evaluation_crops=2)
    middle = video.decode_views(clip(), 16, 1, 1, 2)[:, 0]
    assert np.array_equal(views.evaluation_views(clip(), 16, dataset), middle) and middle.shape == (2, 16, 16, 3)


def test_one_view_is_the_evaluations():
    data = clip(size=(32, 48))
    assert np.array_equal(video.decode_views(data, 32, 5, 1, 1)[0], video.decode_clip(data, 32, 5))
