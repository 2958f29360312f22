"""Clips as a model takes them: a few frames each, uniformly sampled."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.images.decode import load_image
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError


def load_clip(thing: Any, size: int, frames: int) -> np.ndarray:
    """Frames of a clip, uniformly sampled: uint8 [frames, size, size, 3].

    Args:
      thing: a path or the bytes of a file (mp4, mkv, webm, mov, avi, gif; a picture stands still), an array
        [T, H, W, 3], or a list of pictures as `load_image` takes them.
      size: pixels a side.
      frames: how many to take: the middles of so many equal parts; of a shorter clip some repeat.

    Raises:
      CocaError: it cannot be read, or there is no picture in it; or PyAV is not installed.
    """
    if isinstance(thing, bytes):
        return _decoded(thing, size, frames, "a clip given as bytes")
    if isinstance(thing, (str, os.PathLike)):
        try:
            return _decoded(Path(thing).read_bytes(), size, frames, str(thing))
        except OSError as error:
            raise CocaError(f"the clip {thing} cannot be read ({error.strerror}): check the path") from error
    pictures = list(thing)
    if not pictures:
        raise CocaError("a clip without a frame cannot be embedded: leave it out")
    places = [(2 * i + 1) * len(pictures) // (2 * frames) for i in range(frames)]
    loaded = {place: load_image(pictures[place], size) for place in set(places)}
    return np.stack([loaded[place] for place in places])


def _decoded(data: bytes, size: int, frames: int, name: str) -> np.ndarray:
    from coca_jax.data.images import augment as views  # imports PyAV, which only clips need

    try:
        return views.view(data, size, DatasetConfig(frames=frames), rng=None)  # as evaluations see it
    except BadRecord as error:
        raise CocaError(f"{name} cannot be read as a clip ({error}): give an mp4, mkv, webm, mov or avi") from error
