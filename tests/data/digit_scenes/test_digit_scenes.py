"""The embedded data set: determinism, the split of the handwriting, and a language without contradictions."""

import types

import numpy as np
import pytest

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.data.digit_scenes import language, rendering
from coca_jax.data.digit_scenes import scenes as digit_scenes
from coca_jax.data.digit_scenes.language import (
    COLORS,
    DIGITS,
    FRAMES,
    PLACES,
    SIZES,
    Meaning,
    Thing,
    meaning,
    phrasings,
)
from coca_jax.data.digit_scenes.scenes import scene
from coca_jax.evaluation.digit_scenes import open_digit_scenes


@pytest.fixture(scope="module")
def many():
    """Scenes with what was drawn, in the order of their things: the digits' numbers, and boxes around their writing."""
    painted = []
    paint = rendering.paint

    def record(canvas, stroke, rgb, centre):
        (x, y), (half_x, half_y) = centre, stroke.half
        painted.append((stroke.source, (x - half_x, y - half_y, x + half_x, y + half_y)))
        paint(canvas, stroke, rgb, centre)

    def drawn(index, split):
        painted.clear()
        result = scene(index, split)
        sources, boxes = zip(*painted, strict=True)
        return types.SimpleNamespace(**vars(result), sources=sources, boxes=boxes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "paint", record)
        return [drawn(index, split) for split in digit_scenes.SPLITS for index in range(2_000)]


@pytest.mark.parametrize("index", [0, 7, 10**12, 2**62 + 5])
@pytest.mark.parametrize("split", digit_scenes.SPLITS)
def test_a_scene_follows_from_its_index(index, split):
    scene(index + 1, split)
    first, again = scene(index, split), scene(index, split)
    assert np.array_equal(first.image, again.image) and first.caption == again.caption and first.form == again.form
    assert not np.array_equal(first.image, scene(index + 1, split).image)


@pytest.mark.parametrize("split", digit_scenes.SPLITS)
def test_words_are_those_of_the_scene(many, split):
    for index, s in enumerate(many[:300] if split == "train" else many[2_000:2_300]):
        assert digit_scenes.words(index, split) == (s.caption, s.form)


def test_held_out_handwriting_never_occurs_in_training(many):
    training = {source for s in many[:2_000] for source in s.sources}
    held_out = {source for s in many[2_000:] for source in s.sources}
    assert max(training) < digit_scenes.TRAINING_DIGITS <= min(held_out)
    assert len(held_out) == 300 and len(training) > 1_300


def test_the_words_tell_what_is_drawn(many):
    classes = rendering.digits()[2]
    for s in many:
        assert [thing.digit for thing in s.form.things] == [DIGITS[classes[source]] for source in s.sources]
        assert s.image.shape == (40, 40, 3) and s.image.dtype == np.uint8
        for thing, (left, top, right, bottom) in zip(s.form.things, s.boxes, strict=True):
            # The boldest ink inside a thing's box has its colour.
            inside = s.image[round(top) : round(bottom), round(left) : round(right)].reshape(-1, 3).astype(int)
            distances = {color: np.abs(inside - rgb).sum(1).min() for color, rgb in rendering.RGB.items()}
            assert min(distances, key=distances.get) == thing.color, s.caption


def test_things_lie_apart_inside_the_canvas_in_their_relation(many):
    for s in many:
        for i, (left, top, right, bottom) in enumerate(s.boxes):
            assert min(left, top) > -0.01 and max(right, bottom) < 40.01
            for other in s.boxes[:i]:
                across = min(right, other[2]) - max(left, other[0])
                down = min(bottom, other[3]) - max(top, other[1])
                assert across <= 0.01 or down <= 0.01, s.caption
        x = [(box[0] + box[2]) / 2 for box in s.boxes]
        y = [(box[1] + box[3]) / 2 for box in s.boxes]
        match s.form.layout:
            case "single":
                assert s.form.place == _place(x[0], y[0])
            case "vertical" | "column":
                assert y == sorted(y) and max(x) - min(x) < min(np.diff(y))
            case "horizontal" | "row":
                assert x == sorted(x) and max(y) - min(y) < min(np.diff(x))
            case "pair":
                assert y[0] < y[1] == pytest.approx(y[2]) and x[1] < x[2]


def _place(x: float, y: float) -> str:
    if abs(x - 20) < 5 and abs(y - 20) < 5:
        return "middle"
    return f"{'top' if y < 16 else 'bottom' if y > 24 else '?'} {'left' if x < 16 else 'right' if x > 24 else '?'}"


def test_large_is_larger_than_small(many):
    heights = {size: [] for size in SIZES}
    for s in many:
        names = [thing.size for thing in s.form.things]
        assert s.form.layout not in ("row", "column") or names.count("large") < 3  # they would have to shrink
        for thing, box in zip(s.form.things, s.boxes, strict=True):
            heights[thing.size].append(box[3] - box[1])
    assert np.percentile(heights["small"], 99.5) < np.percentile(heights["large"], 0.5)


def test_every_phrasing_means_the_scene(many):
    for s in many:
        texts = phrasings(s.form)
        assert s.caption in texts and len(texts) == len(set(texts)) >= 4
        for text in texts:
            assert meaning(text) == s.form, text
            assert len(text.split()) <= 24


def test_different_scenes_mean_different_things():
    things = [Thing(size, color, digit) for size in SIZES for color in COLORS[:2] for digit in DIGITS[:2]]
    texts = {}
    for layout in FRAMES:
        count = {"single": 1, "vertical": 2, "horizontal": 2}.get(layout, 3)
        for place in PLACES if layout == "single" else ("",):
            for chosen in np.ndindex(*[len(things)] * count):
                form = Meaning(layout, place, tuple(things[i] for i in chosen))
                for text in phrasings(form):
                    assert texts.setdefault(text, form) == form
    assert {meaning(text) for text in texts} == set(texts.values())


def test_both_directions_of_a_relation_agree():
    above = meaning("a small red three above a large blue seven")
    assert above is not None
    assert above == meaning("There is a large blue seven  below a small red three.")
    assert above != meaning("a small red three below a large blue seven")
    assert above != meaning("a small red three above a large blue eight")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "a small red three",
        "a small red three above",
        "a small red three above a large blue",
        "# above #",
        "a small red three above #",
        "a small mauve three in the middle",
        "a small red three above a large blue seven above a small red one",
        "a small red three in the top middle",
    ],
)
def test_other_texts_mean_nothing(text):
    assert meaning(text) is None


def test_the_evaluation_pool_has_distinct_meanings_and_true_classes():
    pool = open_digit_scenes("scenes", EvaluationDatasetConfig(examples=200), 40)
    forms = [meaning(captions[0]) for captions in pool.captions]
    assert len(pool.images) == len(set(forms)) == 200 and None not in forms
    assert all(
        pool.grammar(text) == form for captions, form in zip(pool.captions, forms, strict=True) for text in captions
    )
    digit, color = pool.classifications
    assert len(digit.indices) == len(color.indices) == 60
    for i, d, c in zip(digit.indices, digit.targets, color.targets, strict=True):
        (thing,) = forms[i].things
        assert (thing.digit, thing.color) == (digit.labels[d], color.labels[c])
    for classification in pool.classifications:
        prompts = [t.format(label) for t in classification.templates for label in classification.labels]
        assert None not in map(language.meaning, prompts) and len(set(prompts)) == len(prompts)
    assert None not in map(pool.grammar, pool.queries)
