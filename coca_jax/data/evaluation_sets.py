"""The held-out examples of a config's data set, with what its evaluations ask of them."""

import logging
from collections.abc import Iterator

import numpy as np

from coca_jax.config import Config
from coca_jax.data import digit_scenes, images, records, scene_language
from coca_jax.data.digit_scenes import Scene
from coca_jax.data.evaluation_set import Classification, EvaluationSet
from coca_jax.errors import CocaError

_SINGLES, _DOUBLES = 0.30, 0.37  # shares of the pool with one digit and with two; the rest has three
_MOST_SINGLES = 600  # of 800 distinct ones


def evaluation_sets(config: Config) -> list[EvaluationSet]:
    """The evaluation sets of `config.data`, at the model's image size.

    Raises:
      CocaError: the records cannot be found, or no held-out picture can be read.
    """
    size, examples = config.model.image.size, config.evaluation.examples
    if config.data.task == "digit_scenes":
        return [scenes(examples, size)]
    return [_of_store(config, examples, size)]


def scenes(examples: int, size: int) -> EvaluationSet:
    """`examples` held-out digit scenes of pairwise distinct canonical forms, `size` pixels a side."""
    pool = _distinct_scenes(examples, size)
    singles = np.array([i for i, scene in enumerate(pool) if scene.form.layout == "single"], np.int64)
    shown = [pool[i].form.things[0] for i in singles]
    digits, colors = scene_language.DIGITS, scene_language.COLORS
    classifications = (
        Classification(
            name="digit",
            labels=digits,
            templates=[f"a {s} {c} {{}} in the {p}" for s in scene_language.SIZES for c in colors
                       for p in scene_language.PLACES],
            indices=singles,
            targets=np.array([digits.index(thing.digit) for thing in shown], np.int64),
        ),
        Classification(
            name="color",
            labels=colors,
            templates=[f"a {s} {{}} {d} in the {p}" for s in scene_language.SIZES for d in digits
                       for p in scene_language.PLACES],
            indices=singles,
            targets=np.array([colors.index(thing.color) for thing in shown], np.int64),
        ),
    )
    return EvaluationSet(
        name="digit_scenes",
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


def _of_store(config: Config, examples: int, size: int) -> EvaluationSet:
    """Held-out records, evenly spread over the store; those that cannot be read are left out and logged."""
    store = records.open_store(config.data, "evaluation")
    chosen = np.unique(np.linspace(0, len(store) - 1, min(examples, len(store))).round().astype(np.int64))
    pictures, captions, names = [], [], []
    for record, picture in _readable(store, chosen, size):
        pictures.append(picture)
        captions.append(record.captions)
        names.append(record.metadata.get("name"))
    if not pictures:
        raise CocaError(f"none of the {len(chosen)} held-out records of {config.data.path} can be read: replace them")
    classifications = ()
    if all(isinstance(name, str) and name for name in names) and len(set(names)) > 1:
        labels = sorted(set(names))
        place = {label: i for i, label in enumerate(labels)}
        targets = np.array([place[name] for name in names], np.int64)
        classifications = (Classification("name", labels, ("{}",), np.arange(len(names)), targets),)
    spread = np.unique(np.linspace(0, len(captions) - 1, 6).round().astype(int))
    return EvaluationSet(
        name=config.data.name or config.data.task,
        images=np.stack(pictures),
        captions=captions,
        meaning=plain_meaning,
        classifications=classifications,
        sentences=tuple(captions[i][0] for i in spread),
    )


def _readable(store: records.Store, chosen: np.ndarray, size: int) -> Iterator[tuple[records.Record, np.ndarray]]:
    for index in chosen.tolist():
        try:
            record = store[index]
            yield record, images.resize_and_crop(images.decode(record.image), size)
        except images.BadRecord as error:
            logging.getLogger(__name__).warning("held-out record %s left out: %s", store.name(index), error)


def plain_meaning(text: str) -> str | None:
    """The canonical form of free text: two texts agree where only case and spaces differ; None for no text."""
    return " ".join(text.casefold().split()) or None
