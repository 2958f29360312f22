"""The held-out digit scenes as an evaluation dataset, with their grammar."""

import itertools
from collections import Counter

import numpy as np

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.digit_scenes import language
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.data.digit_scenes.scenes import Scene
from coca_jax.evaluation.dataset import Classification, EvaluationDataset, TrainingImages
from coca_jax.evaluation.training_images import pool_size

_EXAMPLES = 1_000  # if the config does not say how many
_SINGLES, _DOUBLES = 0.30, 0.37  # shares of the pool with one digit and with two; the rest has three
_MOST_SINGLES = 600  # of 800 distinct ones
_CLASSES = (*language.DIGITS, *language.COLORS)
_TRAINING_OF_EACH = 200  # training scenes of each digit and color, where all are wanted: there is no end of them
_QUERIES = (
    "a large red three in the middle",
    "a small blue seven in the top left",
    "a large green four above a small yellow nine",
    "a small pink zero to the left of a large cyan five",
    "a row of a small orange one, a large purple eight and a small red two",
    "a large yellow six above a small blue two on the left and a small green eight on the right",
)


def open_digit_scenes(name: str, config: EvaluationDatasetConfig, size: int) -> EvaluationDataset:
    """Held-out digit scenes of pairwise distinct canonical forms, `size` pixels a side."""
    pool = _distinct_scenes(config.examples or _EXAMPLES, size)
    singles = np.array([i for i, scene in enumerate(pool) if scene.form.layout == "single"], np.int64)
    things = [pool[i].form.things[0] for i in singles]
    sizes, colors, digits, places = language.SIZES, language.COLORS, language.DIGITS, language.PLACES
    by_digit = [f"a {s} {c} {{}} in the {p}" for s in sizes for c in colors for p in places]
    by_color = [f"a {s} {{}} {d} in the {p}" for s in sizes for d in digits for p in places]
    digit = np.array([digits.index(thing.digit) for thing in things], np.int64)
    color = np.array([colors.index(thing.color) for thing in things], np.int64)
    classifications = (
        Classification("digit", digits, by_digit, singles, digit),
        Classification("color", colors, by_color, singles, color),
    )
    return EvaluationDataset(
        name=name,
        config=config,
        images=np.stack([scene.image for scene in pool]),
        # The one chosen by the scene's index first.
        captions=[list(dict.fromkeys([scene.caption, *language.phrasings(scene.form)])) for scene in pool],
        grammar=language.meaning,
        classifications=classifications if len(singles) else (),
        queries=_QUERIES,
        training=_training_images(config, size) if "few_shot" in config.tasks and len(singles) else None,
    )


def _training_images(config: EvaluationDatasetConfig, size: int) -> TrainingImages:
    """Training scenes with one digit: as many as the config names, or enough of each digit and color to draw from."""
    indices, classes = itertools.count(), []
    counts: Counter[str] = Counter()
    wanted, each = config.few_shot.examples, pool_size(config.few_shot) or _TRAINING_OF_EACH
    chosen: list[int] = []
    while len(chosen) < wanted or (not wanted and min(counts[name] for name in _CLASSES) < each):
        _, form = digit_scenes.words(index := next(indices), "train")
        if form.layout == "single":
            (thing,) = form.things
            chosen.append(index)
            classes.append((language.DIGITS.index(thing.digit), language.COLORS.index(thing.color)))
            counts.update((thing.digit, thing.color))
    images = np.stack([digit_scenes.scene(index, "train", size).image for index in chosen])
    digit, color = np.array(classes, np.int64).T
    return TrainingImages(images, {"digit": digit, "color": color})


def _distinct_scenes(examples: int, size: int) -> list[Scene]:
    singles = min(round(_SINGLES * examples), _MOST_SINGLES)
    doubles = round(_DOUBLES * examples)
    wanted = {1: singles, 2: doubles, 3: examples - singles - doubles}
    pool: list[Scene] = []
    seen, index = set(), 0
    while len(pool) < examples:
        _, form = digit_scenes.words(index, "evaluation")
        if wanted[len(form.things)] and form not in seen:
            wanted[len(form.things)] -= 1
            seen.add(form)
            pool.append(digit_scenes.scene(index, "evaluation", size))
        index += 1
    return pool
