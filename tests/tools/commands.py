"""Runs a command of `python -m coca_jax.tools` in this process, flags and all, and makes images that look like photographs."""

import importlib

import numpy as np
from absl import flags
from PIL import Image

from coca_jax.tools.__main__ import COMMANDS


def call(name: str, config, *arguments: str) -> None:
    """As the command line does it, but for the config, which is given as it is."""
    values = flags.FlagValues()
    run = importlib.import_module(COMMANDS[name][0]).define(values)
    values(["data", *arguments])
    run(config)


def photo(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Smooth random shapes, some fine texture: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))
