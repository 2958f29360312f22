"""The held-out sets of a run and those that an evaluation names, with what is asked of them."""

import dataclasses
import functools
import logging

import numpy as np

from coca_jax.config import Config, EvaluationConfig, EvaluationDatasetConfig
from coca_jax.data.digit_scenes import language as scene_language
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.data.digit_scenes.scenes import Scene
from coca_jax.errors import CocaError, DataError
from coca_jax.evaluation import held_out
from coca_jax.evaluation.dataset import Classification, EvaluationSet, UnopenedSet

_log = logging.getLogger(__name__)
_SCENES = 1_000  # of a set that does not say how many
_SINGLES, _DOUBLES = 0.30, 0.37  # shares of the pool with one digit and with two; the rest has three
_MOST_SINGLES = 600  # of 800 distinct ones


def evaluation_sets(config: Config) -> list[EvaluationSet]:
    """The held-out sets of a run's data, one for each source of a mixture that has any, and `config.evaluation.datasets`.

    Raises:
      CocaError: the records cannot be found, or no held-out picture can be read.
    """
    size, examples = config.model.image.size, config.evaluation.examples
    found, errors = [], []
    for name, source in config.data.sources.items():
        if config.evaluation.datasets and not source.dataset.holds_out:
            continue  # all of it trains, and others are evaluated
        try:
            if source.dataset.format == "digit_scenes":
                found.append(scenes(examples, size, name))
            else:
                found.append(held_out.own_set(name, source.dataset, examples, size))
        except CocaError as error:
            if not config.data.mixture or isinstance(error, DataError):  # a bucket is lost, not a set
                raise
            errors.append(error)
            _log.warning("%s is trained on and not evaluated: %s", name, error)
    if errors and not found:
        raise errors[0]
    found = [dataclasses.replace(one, long_text=config.data.long_text) for one in found]
    # Open from now on: what is wrong with them must not show hours later, and they are evaluated many times.
    more = named_sets(config.evaluation, size, "evaluation.datasets")
    return found + [one.open() for one in more]


def named_sets(config: EvaluationConfig, size: int, where: str = "datasets") -> list[UnopenedSet]:
    """The datasets of an `EvaluationConfig`, `size` pixels a side; `where` is their place in the config.

    Raises:
      CocaError: what one of them names cannot be found.
    """
    class_files_read: set[tuple[str, ...]] = set()
    for name, asked in config.datasets.items():
        if asked.dataset.format != "digit_scenes":
            held_out.check(name, asked, where)
            named = (asked.dataset.class_names, asked.classification.class_ids, *asked.dataset.prompts)
            if named not in class_files_read:  # of 75 sets with the same files, once
                held_out.check_class_files(asked)
            class_files_read.add(named)
    return [
        UnopenedSet(name, asked, functools.partial(_named, name, asked, size, where))
        for name, asked in config.datasets.items()
    ]


def _named(name: str, asked: EvaluationDatasetConfig, size: int, where: str) -> EvaluationSet:
    if asked.dataset.format == "digit_scenes":
        return scenes(asked.examples or _SCENES, size, name, asked)
    return held_out.named_set(name, asked, size, where)


def scenes(
    examples: int, size: int, name: str = "digit_scenes", asked: EvaluationDatasetConfig | None = None
) -> EvaluationSet:
    """`examples` held-out digit scenes of pairwise distinct canonical forms, `size` pixels a side."""
    pool = _distinct_scenes(examples, size)
    singles = np.array([i for i, scene in enumerate(pool) if scene.form.layout == "single"], np.int64)
    shown = [pool[i].form.things[0] for i in singles]
    digits, colors = scene_language.DIGITS, scene_language.COLORS
    classifications = (
        Classification(
            name="digit",
            labels=digits,
            templates=[
                f"a {s} {c} {{}} in the {p}"
                for s in scene_language.SIZES
                for c in colors
                for p in scene_language.PLACES
            ],
            indices=singles,
            targets=np.array([digits.index(thing.digit) for thing in shown], np.int64),
        ),
        Classification(
            name="color",
            labels=colors,
            templates=[
                f"a {s} {{}} {d} in the {p}"
                for s in scene_language.SIZES
                for d in digits
                for p in scene_language.PLACES
            ],
            indices=singles,
            targets=np.array([colors.index(thing.color) for thing in shown], np.int64),
        ),
    )
    return EvaluationSet(
        name=name,
        images=np.stack([scene.image for scene in pool]),
        captions=[_captions(scene) for scene in pool],
        meaning=scene_language.meaning,
        classifications=classifications if len(singles) else (),
        sentences=(
            "a large red three in the middle",
            "a small blue seven in the top left",
            "a large green four above a small yellow nine",
            "a small pink zero to the left of a large cyan five",
            "a row of a small orange one, a large purple eight and a small red two",
            "a large yellow six above a small blue two on the left and a small green eight on the right",
        ),
        long_text=asked.long_text if asked else "error",
        asked=asked,
    )


def _captions(scene: Scene) -> list[str]:
    """All that can be said of the scene, the one chosen by its index first."""
    return [scene.caption, *(text for text in digit_scenes.phrasings(scene) if text != scene.caption)]


def _distinct_scenes(examples: int, size: int) -> list[Scene]:
    singles = min(round(_SINGLES * examples), _MOST_SINGLES)
    doubles = round(_DOUBLES * examples)
    wanted = {1: singles, 2: doubles, 3: examples - singles - doubles}
    seen, pool, index = set(), [], 0
    while len(pool) < examples:
        scene = digit_scenes.scene(index, "evaluation", size)
        index += 1
        count = len(scene.form.things)
        if wanted[count] and scene.form not in seen:
            wanted[count] -= 1
            seen.add(scene.form)
            pool.append(scene)
    return pool
