"""Clips: frames spread evenly over a video file that lies in memory, decoded by PyAV (FFmpeg).

A clip's packets are listed first, which decodes nothing and tells which frames are wanted; then the decoder runs
through them in order, jumping to a keyframe where that saves decoding many frames. Pixels are taken as square.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from coca_jax.data.images import decode as stills
from coca_jax.data.images.decode import load_image, read_file, resize_and_crop
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

try:
    import av

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

NEEDS_PYAV = 'PyAV, which decodes video clips, is not installed: pip install ".[video]"'
MAX_PACKETS = 1_000_000  # of the clip: ten hours
MAX_DECODED = 4 * 2**30  # pixels decoded for one clip, wanted or not: half a minute of a core
_WORTH_A_JUMP = 24  # frames; a jump costs about as much as decoding a few
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # the first box of a file of the mp4 and mov family


def is_clip(data: bytes) -> bool:
    """Whether the bytes begin as mp4, mov, mkv, webm or avi do; a GIF is an image unless the dataset has frames."""
    if data[4:8] in _BOXES:  # after the box's size, which four letters of a text would make enormous
        return int.from_bytes(data[:4]) < 2**29 and not stills.is_image_container(data)
    return data[:4] == b"\x1aE\xdf\xa3" or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


def is_gif(data: bytes) -> bool:
    """Whether the bytes begin as a GIF does."""
    return data[:6] in (b"GIF87a", b"GIF89a")


def load_clip(clip: Any, size: int, frames: int) -> np.ndarray:
    """Frames of a clip, the middles of equal parts (of a short clip some repeat): uint8 [frames, size, size, 3].

    The clip is a path or the bytes of a file (mp4, mkv, webm, mov, avi, gif), an array [T, H, W, 3], or an iterable of
    images as `load_image` takes them. One image stands still. Raises CocaError if it cannot be read or has no frame, or
    PyAV is not installed.
    """
    if isinstance(clip, (str, os.PathLike, bytes)):
        name, data = read_file(clip, "clip")
        try:
            return decode_clip(data, size, frames)
        except BadRecord as error:
            raise CocaError(f"{name} cannot be read as a clip ({error}): give an mp4, mkv, webm, mov or avi") from error
    if isinstance(clip, Image.Image) or (getattr(clip, "ndim", 0) == 3 and clip.shape[2] in (3, 4)):
        clip = [clip]
    try:
        images = list(clip)
    except TypeError:
        forms = "a path, a file's bytes, an array [T, H, W, 3] or a list of images"
        raise CocaError(f"a {type(clip).__name__} is not a clip: give {forms}") from None
    if not images:
        raise CocaError("a clip without a frame cannot be embedded: leave it out")
    taken = positions(len(images), frames, None)
    loaded = {place: load_image(images[place], size) for place in set(taken)}
    return np.stack([loaded[place] for place in taken])


def decode_clip(data: bytes, size: int, count: int) -> np.ndarray:
    """The evaluation's view of a clip, or of an image that stands still: uint8 [count, size, size, 3]; errors as `frames`."""
    if is_clip(data) or is_gif(data):
        images = [Image.fromarray(frame) for frame in frames(data, count, smallest=stills.least_side(size))]
        return np.stack([resize_and_crop(image, size) for image in images])
    return np.repeat(resize_and_crop(stills.decode(data), size)[None], count, axis=0)


def decode_views(data: bytes, size: int, count: int, clips: int, crops: int) -> np.ndarray:
    """Several views of a clip, by whose mean predictions it is evaluated: uint8 [clips · crops, count, size, size, 3].

    The clips take turns with the frames of `clips · count` equal parts; of each there are `crops` squares, evenly spread
    over the longer side. Errors as `frames`.
    """
    images = [Image.fromarray(one) for one in frames(data, clips * count, smallest=stills.least_side(size))]
    boxes = stills.squares(*images[0].size, crops)
    views = [
        [stills.resized(image, size, box) for image in images[clip::clips]] for clip in range(clips) for box in boxes
    ]
    return np.array(views)


def frames(data: bytes, count: int, rng: np.random.Generator | None = None, smallest: int = 0) -> np.ndarray:
    """Frames of a clip, upright: uint8 [count, height, width, 3].

    One of each of `count` equal parts, drawn from `rng`, or without one the middle; a clip of fewer frames repeats some.
    Frames that cannot be decoded are replaced by the last one before, or the first after. They may come out smaller,
    while no side falls below `smallest`; 0: as they are.

    Raises:
      BadRecord: nothing can be decoded, the clip is too large, or PyAV is not installed.
    """
    if not AVAILABLE:
        raise BadRecord(NEEDS_PYAV)
    try:
        decoded = _decoded(data, count, rng, smallest)
    except BadRecord:
        raise
    except Exception as error:  # FFmpeg's errors, and PyAV's own on crafted files
        raise BadRecord("damaged clip") from error
    whole = np.flatnonzero([frame is not None for frame in decoded])
    if not len(whole):
        raise BadRecord("damaged clip")
    nearest = whole[np.maximum(np.searchsorted(whole, np.arange(count), side="right") - 1, 0)]
    return np.stack([decoded[i] for i in nearest])


def positions(total: int, count: int, rng: np.random.Generator | None) -> list[int]:
    """The numbers of the frames taken of `total`, in order: one of each of `count` equal parts."""
    within = np.full(count, 0.5) if rng is None else rng.random(count)
    return np.minimum((np.arange(count) + within) * total / count, total - 1).astype(int).tolist()


def _decoded(data: bytes, count: int, rng: np.random.Generator | None, smallest: int) -> list[np.ndarray | None]:
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise BadRecord("file without video")
        _check_size(stream.codec_context)
        stream.codec_context.thread_count = 1  # records are made side by side already
        total, times, keys = _packets(container, stream)
        wanted = positions(max(1, total), count, rng)
        shown: Iterator[tuple[int, av.VideoFrame]]
        if len(times) < total:
            shown = enumerate(_from(container, stream, 0, [MAX_DECODED]))  # without times, frames can only be counted
        else:
            shown = _shown(container, stream, times, keys, sorted(set(wanted)))
        pixels: dict[int, np.ndarray] = {}
        with contextlib.suppress(av.FFmpegError):  # the rest is lost
            for number, frame in shown:
                if number in wanted:
                    first = next(iter(pixels.values()), None)
                    pixels[number] = _pixels(frame, smallest, None if first is None else first.shape)
                if number >= wanted[-1]:
                    break
        return [pixels.get(number) for number in wanted]


def _packets(container, stream) -> tuple[int, list[int], list[int]]:
    """The number of frames, their distinct times and those of keyframes, sorted."""
    total, times, keys = 0, set(), []
    with contextlib.suppress(av.FFmpegError):  # a clip that breaks off is as long as what there is of it
        for packet in container.demux(stream):
            if packet.size:  # the last one is empty and flushes the decoder
                total += 1
                if packet.pts is not None:
                    times.add(packet.pts)
                    keys += [packet.pts] * packet.is_keyframe
            if total > MAX_PACKETS:
                raise BadRecord("clip too long")
    return total, sorted(times), sorted(keys)


def _shown(
    container, stream, times: Sequence[int], keys: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """(number, frame) of all frames that are decoded on the way to the wanted ones."""
    number_of: dict[int | None, int] = {time: number for number, time in enumerate(times)}
    starts = np.searchsorted(times, keys).tolist()  # numbers of the keyframes
    budget = [MAX_DECODED]
    here, decoder = 0, _from(container, stream, times[0], budget)
    for number in wanted:
        start = max((start for start in starts if start <= number), default=0)
        if start - here > _WORTH_A_JUMP:
            decoder = _from(container, stream, times[start], budget)
        while here <= number:
            frame = next(decoder, None)
            if frame is None:
                return
            here = number_of.get(frame.pts, here) + 1
            yield here - 1, frame


def _from(container, stream, time: int, budget: list[int]) -> Iterator["av.VideoFrame"]:
    """The frames from the keyframe at or before a time on; pixels are taken off the budget."""
    container.seek(time, stream=stream, backward=True, any_frame=False)
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.FFmpegError:  # later packets may still be whole
            continue
        for frame in decoded:
            _check_size(frame)
            budget[0] -= frame.width * frame.height
            if budget[0] < 0:
                raise BadRecord("clip too long")
            yield frame


def _check_size(frame) -> None:
    if frame.width * frame.height > stills.MAX_PIXELS:
        raise BadRecord("too many pixels")


def _pixels(frame: "av.VideoFrame", smallest: int, like: tuple[int, ...] | None) -> np.ndarray:
    """The frame as uint8 [height, width, 3], of the shape `like` where one is given."""
    turns = round(frame.rotation / 90) % 4
    if like is not None:
        height, width = like[:2] if turns % 2 == 0 else like[1::-1]
    else:
        shrink = min(1.0, smallest / min(frame.height, frame.width)) if smallest else 1.0
        height, width = (math.ceil(side * shrink) for side in (frame.height, frame.width))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
