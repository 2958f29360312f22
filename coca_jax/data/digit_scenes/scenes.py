"""The embedded dataset: real handwriting in small coloured scenes, made by index, without files.

A scene holds one to three of scikit-learn's 1,797 bundled 8x8 digits. The first 1,497 occur in training scenes
only, the last 300 in held-out scenes only. Everything about a scene follows from (split, index) alone, so the
dataset is unbounded and any scene is reached without the ones before it.
"""

import dataclasses

import numpy as np

from coca_jax.data.digit_scenes.language import COLORS, DIGITS, LAYOUTS, PLACES, SIZES, Meaning, Thing, phrase
from coca_jax.data.digit_scenes.rendering import digits, render

TRAINING_DIGITS = 1_497  # of 1,797; the rest is held out
SPLITS = ("train", "evaluation")

_COUNTS = (0.45, 0.75)  # 45 % of the scenes hold one digit, 30 % two, the rest three
_DRAWS = 80  # uniform numbers, more than any scene uses


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image, uint8 [size, size, 3]; one of its phrasings, chosen by the index; and its canonical form."""

    image: np.ndarray
    caption: str
    form: Meaning


def words(index: int, split: str = "train") -> tuple[str, Meaning]:
    """The caption and canonical form of the scene number `index`, without its image."""
    return _words(split, *_random(index, split))[:2]


def scene(index: int, split: str = "train", size: int = 40) -> Scene:
    """The scene number `index` (any integer from 0) of a split, on a canvas of `size` pixels a side."""
    pick, draw = _random(index, split)
    caption, form, sources = _words(split, pick, draw)
    return Scene(render(form, sources, split, size, pick, draw), caption, form)


def numbers(split: str) -> range:
    """The numbers of the split's written digits among scikit-learn's."""
    return range(TRAINING_DIGITS) if split == SPLITS[0] else range(TRAINING_DIGITS, len(digits()[2]))


def _random(index: int, split: str):
    """A scene's random numbers, as functions: one of some options, and a number from -1 to 1."""
    uniform = np.random.default_rng((SPLITS.index(split), index)).random(_DRAWS).tolist()
    return lambda options: options[int(uniform.pop() * len(options))], lambda: 2 * uniform.pop() - 1


def _words(split: str, pick, draw) -> tuple[str, Meaning, list[int]]:
    """The caption and form of a scene, and which of the digits each of its things is; before all other draws."""
    share = (draw() + 1) / 2
    count = 1 + (share >= _COUNTS[0]) + (share >= _COUNTS[1])
    layout, place, choice = pick(LAYOUTS[count]), pick(PLACES), pick(range(60))
    targets = digits()[2]
    sources = [pick(numbers(split)) for _ in range(count)]
    sizes = [pick(SIZES) for _ in range(count)]
    if layout in ("row", "column") and sizes.count("large") == 3:
        sizes[pick(range(3))] = "small"  # three large ones do not fit in a line
    things = tuple(
        Thing(name, pick(COLORS), DIGITS[targets[source]]) for name, source in zip(sizes, sources, strict=True)
    )
    form = Meaning(layout, place if layout == "single" else "", things)
    return phrase(form, choice), form, sources
