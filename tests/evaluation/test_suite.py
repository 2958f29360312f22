import numpy as np
import pytest

from coca_jax.evaluation import captioning
from coca_jax.evaluation.suite import evaluate
from tests.evaluation.fakes import FakeCoca, digit_set


def test_a_model_that_knows_everything_scores_one():
    held_out = digit_set()
    result = evaluate(FakeCoca(held_out), held_out, gallery=8)
    sizes = {"squares/images": 60, "squares/distinct_captions": 10, "squares/distinct_meanings": 10}
    assert sizes.items() <= result.metrics.items()
    scores = {key: value for key, value in result.metrics.items() if key not in sizes}
    assert set(scores) == {
        *(f"squares/{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
        *(f"squares/caption_{kind}" for kind in ("equivalent", "exact", "parsed")),
        "squares/zero_shot_digit",
    }
    assert set(scores.values()) == {1.0}
    assert result.chance["squares/zero_shot_digit"] == pytest.approx(0.1)
    assert result.chance["squares/caption_equivalent"] == pytest.approx(0.1)
    assert len(result.gallery) == 8 and not result.mistakes
    assert all(example.generated_right and example.retrieved_right for example in result.gallery)
    found, missing = result.searches
    assert found.matching == 6 and sum(found.right) == 6 and found.right[:6] == [True] * 6
    assert missing.matching == 0 and not any(missing.right)


def test_every_third_wrong_shows_in_each_number():
    held_out = digit_set()
    result = evaluate(FakeCoca(held_out, wrong_every=3), held_out, gallery=4)
    for key in ("caption_equivalent", "image_to_text_r1", "zero_shot_digit"):
        assert result.metrics[f"squares/{key}"] == pytest.approx(2 / 3)
    assert result.mistakes and not any(example.generated_right for example in result.mistakes)
    outcome = result.classifications[0]
    assert np.mean(outcome.targets == outcome.predicted) == pytest.approx(outcome.accuracy)
    assert all(right != said for _, right, said in outcome.mistakes)


def test_many_classes_also_get_the_first_five():
    held_out = digit_set(images=50, classes=25)
    result = evaluate(FakeCoca(held_out), held_out)
    assert result.metrics["squares/zero_shot_digit_top5"] == 1.0
    assert result.chance["squares/zero_shot_digit_top5"] == pytest.approx(0.2)


@pytest.mark.parametrize("can_embed, can_caption", [(True, False), (False, True), (False, False)])
def test_what_a_model_cannot_do_is_left_out(can_embed, can_caption):
    held_out = digit_set()
    result = evaluate(FakeCoca(held_out, can_embed=can_embed, can_caption=can_caption), held_out)
    assert ("squares/image_to_text_r1" in result.metrics) == can_embed
    assert bool(result.searches) == bool(result.classifications) == can_embed
    assert ("squares/caption_equivalent" in result.metrics) == can_caption
    assert all((example.generated is not None) == can_caption for example in result.gallery)


def test_captions_are_judged_by_meaning_and_by_word():
    meaning = {"a three": 3, "one three": 3, "a four": 4}.get
    generated = ["one three", "a  three", "a four", "xyzzy", "A dog"]
    captions = [("a three",), ("a three",), ("a three",), ("a three",), ("two cats", "a dog")]
    assert captioning.caption_metrics(generated, captions, meaning) == {
        "caption_equivalent": 2 / 5,
        "caption_exact": 1 / 5,
        "caption_parsed": 2 / 5,
    }
    assert captioning.constant_answer(captions, meaning) == 4 / 5
