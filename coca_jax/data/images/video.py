"""Clips: frames spread evenly over a video file that lies in memory, decoded by PyAV (FFmpeg).

A clip's packets are listed first, which decodes nothing: then it is known which frames are wanted, and the decoder runs
through them in order, jumping to a keyframe where that spares it many frames. Pixels are taken as square.
"""

import io
import math
from collections.abc import Iterator, Sequence

import numpy as np

from coca_jax.data.images.decode import MAX_PIXELS
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

try:
    import av
except ImportError:
    av = None

MAX_PACKETS = 1_000_000  # of the clip: ten hours
MAX_DECODED = 4 * 2**30  # pixels decoded for one clip, wanted or not: half a minute of a core
_WORTH_A_JUMP = 24  # frames; a jump costs about as much as decoding a few
_BRANDS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # what begins a file of the mp4 and mov family


def is_clip(data: bytes) -> bool:
    """Whether the bytes begin as mp4, mov, mkv, webm or avi do; a GIF is a picture unless frames are asked for."""
    return data[:4] == b"\x1aE\xdf\xa3" or data[4:8] in _BRANDS or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


def is_gif(data: bytes) -> bool:
    return data[:6] in (b"GIF87a", b"GIF89a")


def frames(data: bytes, count: int, rng: np.random.Generator | None = None, smallest: int = 0) -> np.ndarray:
    """Frames of a clip, upright: uint8 [count, height, width, 3].

    The clip is cut into `count` equal parts; of each the middle frame is taken or, with a generator, any. A clip of
    fewer frames repeats some; frames that cannot be decoded are replaced by the last one before, or the first after.

    Args:
      data: a file of any of the formats above, or a GIF.
      count: how many frames.
      rng: the only source of chance; None: the middle of each part.
      smallest: frames may come out smaller, as long as no side falls below this; 0: as they are.

    Raises:
      BadRecord: nothing can be decoded, or the clip is too large.
      CocaError: PyAV is not installed.
    """
    if av is None:
        raise CocaError('the data holds video clips, which PyAV decodes: install it with pip install ".[video]"')
    try:
        found = _decoded(data, count, rng, smallest)
    except BadRecord:
        raise
    except Exception as error:  # FFmpeg's errors, and PyAV's own on crafted files
        raise BadRecord("damaged clip") from error
    have = np.flatnonzero([frame is not None for frame in found])
    if not len(have):
        raise BadRecord("damaged clip")
    nearest = have[np.maximum(np.searchsorted(have, np.arange(count), side="right") - 1, 0)]
    return np.stack([found[i] for i in nearest])


def positions(total: int, count: int, rng: np.random.Generator | None) -> list[int]:
    """Which of `total` frames are taken, in order: one of each of `count` equal parts."""
    within = np.full(count, 0.5) if rng is None else rng.random(count)
    return np.minimum((np.arange(count) + within) * total / count, total - 1).astype(int).tolist()


def _decoded(data: bytes, count: int, rng: np.random.Generator | None, smallest: int) -> list[np.ndarray | None]:
    with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise BadRecord("damaged clip")
        _check_size(stream.codec_context)
        stream.codec_context.thread_count = 1  # records are made side by side already
        times, keys = _packets(container, stream)
        wanted = positions(max(1, len(times)), count, rng)
        if None in times or len(set(times)) < len(times):
            shown = enumerate(_from(container, stream, 0, [MAX_DECODED]))  # without times, frames can only be counted
        else:
            times.sort()
            shown = _shown(container, stream, times, sorted(keys), sorted(set(wanted)))
        kept: dict[int, np.ndarray] = {}
        try:
            for number, frame in shown:
                if number in wanted:
                    first = next(iter(kept.values()), None)
                    kept[number] = _pixels(frame, smallest, None if first is None else first.shape)
                if number >= wanted[-1]:
                    break
        except av.FFmpegError:  # what comes after is lost
            pass
        return [kept.get(number) for number in wanted]


def _packets(container, stream) -> tuple[list[int | None], list[int]]:
    """The times of all frames as they are stored, and those of keyframes."""
    times, keys = [], []
    try:
        for packet in container.demux(stream):
            if packet.size:  # the last one is empty and flushes the decoder
                times.append(packet.pts)
                if packet.is_keyframe and packet.pts is not None:
                    keys.append(packet.pts)
            if len(times) > MAX_PACKETS:
                raise BadRecord("clip too long")
    except av.FFmpegError:  # a clip that breaks off is as long as what there is of it
        pass
    return times, keys


def _shown(
    container, stream, times: Sequence[int], keys: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """(number, frame) of all frames that are decoded on the way to the wanted ones."""
    number_of = {time: number for number, time in enumerate(times)}
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


def _check_size(thing) -> None:
    if thing.width * thing.height > MAX_PIXELS:
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
