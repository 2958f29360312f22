"""Predictions of a head: of images, clips and pairs, with and without texts, one by one and in batches."""

import jax
import numpy as np
import pytest
from PIL import Image

from coca_jax.errors import CocaError
from coca_jax.inference.prediction import Prediction
from tests.inference import tiny_coca

IMAGES, CLASSES = tiny_coca.images(), tiny_coca.CLASSES
TEXTS = ["a red thing", "a blue one", "green", "a thing", "blue and red", "a one", "green and a thing", "red", "blue"]


def test_a_prediction_has_its_classes_in_order():
    one = Prediction.of(CLASSES, np.array([0.2, 0.5, 0.3], np.float32))
    assert (one.label, str(one)) == ("blue", "blue (50%)") and one.probability == pytest.approx(0.5)
    assert list(one.probabilities) == ["blue", "green", "red"]
    assert Prediction.of(CLASSES, np.array([0.4, 0.2, 0.4])).label == "red"  # of equal ones the first


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_batches_of_any_size_equal_one_by_one(count):
    vision, vqa = tiny_coca.adapted("classification"), tiny_coca.adapted("vqa")
    found, asked = vision.head_probabilities(IMAGES[:count]), vqa.head_probabilities(IMAGES[:count], TEXTS[:count])
    for probabilities in (found, asked):
        assert probabilities.shape == (count, 3) and probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    for number in range(count):
        one = slice(number, number + 1)
        np.testing.assert_allclose(vision.head_probabilities(IMAGES[one]), found[one], atol=1e-5)
        np.testing.assert_allclose(vqa.head_probabilities(IMAGES[one], TEXTS[one]), asked[one], atol=1e-5)
    assert [one.label for one in vision.predict(IMAGES[:count])] == [CLASSES[row.argmax()] for row in found]


def test_files_arrays_and_images_agree(tmp_path):
    coca = tiny_coca.adapted("classification")
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, IMAGES, strict=False):
        Image.fromarray(image).save(path)
    expected = coca.head_probabilities(IMAGES[:3])
    assert np.ptp(expected, axis=0).max() > 1e-3
    for form in (paths, list(map(str, paths)), list(IMAGES[:3]), [Image.fromarray(image) for image in IMAGES[:3]]):
        np.testing.assert_allclose(coca.head_probabilities(form), expected, atol=1e-5)
    assert coca.predict(paths[0])[0].probabilities == pytest.approx(coca.predict(IMAGES[:1])[0].probabilities, abs=1e-5)


def test_a_question_is_answered_by_the_classifier_or_in_words():
    coca = tiny_coca.adapted("vqa")
    chosen = coca.answer(IMAGES, TEXTS)
    assert chosen == [one.label for one in coca.predict(IMAGES, TEXTS)] and set(chosen) <= set(CLASSES)
    words = coca.answer(IMAGES[:2], "a red", in_words=True)
    assert len(words) == 2 and all(isinstance(answer, str) for answer in words)
    assert words == [caption[len("a red") :].strip() for caption in coca.caption(IMAGES[:2], prompts="a red")]
    # It depends on image and question.
    probabilities = coca.head_probabilities(IMAGES, TEXTS)
    assert np.abs(coca.head_probabilities(IMAGES, TEXTS[::-1]) - probabilities).max() > 1e-3
    assert np.abs(coca.head_probabilities(IMAGES[::-1], TEXTS) - probabilities).max() > 1e-3


def test_what_is_predicted_is_what_was_trained():
    """A question has neither an end nor its answer, as the head sees it in training; a hypothesis has its end."""
    asked, ends = tiny_coca.adapted("vqa"), tiny_coca.adapted("entailment")
    v, objectives = asked.vocabulary, {}
    for name, coca in (("vqa", asked), ("entailment", ends)):
        ids, count = v.encode_answered(TEXTS, ["red"] * 9, 16)
        if name == "entailment":
            ids, count = v.encode(TEXTS, 16), None
        valid = ids != v.pad_id
        pooled = valid if count is None else np.arange(16)[None] < count[:, None]

        @jax.jit
        def probabilities(params, *text, model=coca._model):
            tokens = model.apply({"params": params}, IMAGES, method="encode")
            return jax.nn.softmax(model.apply({"params": params}, tokens, *text).logits_BC)

        objectives[name] = probabilities(coca._params, ids, valid, pooled)
    np.testing.assert_allclose(asked.head_probabilities(IMAGES, TEXTS), objectives["vqa"], atol=1e-5)
    np.testing.assert_allclose(ends.head_probabilities(IMAGES, TEXTS), objectives["entailment"], atol=1e-5)


def test_clips(tmp_path):
    coca, clips = tiny_coca.adapted("classification", 3), IMAGES.reshape(3, 3, 16, 16, 3)
    expected = coca.head_probabilities(clips)
    assert expected.shape == (3, 3) and np.ptp(expected, axis=0).max() > 1e-3
    frames = [Image.fromarray(image) for image in clips[0]]
    frames[0].save(tmp_path / "0.gif", save_all=True, append_images=frames[1:], loop=0)
    for form in (list(clips), [list(clip) for clip in clips], [clips[0], *(list(clip) for clip in clips[1:])]):
        np.testing.assert_allclose(coca.head_probabilities(form), expected, atol=1e-5)
    assert [one.label for one in coca.predict_videos(clips)] == [CLASSES[row.argmax()] for row in expected]
    np.testing.assert_allclose(coca.head_probabilities(clips[0]), expected[:1], atol=1e-5)  # one clip
    longer = np.repeat(clips[0], 2, axis=0)  # of more frames those that are evenly spread
    np.testing.assert_allclose(coca.head_probabilities([longer]), expected[:1], atol=1e-5)
    assert len(coca.predict_videos([tmp_path / "0.gif"])) == 1
    assert coca.predict_videos([]) == []


def test_pairs():
    coca, pairs = tiny_coca.adapted("pairs"), np.stack([IMAGES[:4], IMAGES[4:8]], axis=1)
    expected = coca.head_probabilities(pairs, TEXTS[:4])
    assert expected.shape == (4, 3)
    for form in (
        list(pairs),
        [tuple(pair) for pair in pairs],
        [[Image.fromarray(image) for image in pair] for pair in pairs],
    ):
        np.testing.assert_allclose(coca.head_probabilities(form, TEXTS[:4]), expected, atol=1e-5)
    assert np.abs(coca.head_probabilities(pairs[:, ::-1], TEXTS[:4]) - expected).max() > 1e-3
    for other in (list(IMAGES[:2]), ["ab", "cd"], [IMAGES[:3]], [None], [[IMAGES[0], "absent.png"]]):
        with pytest.raises(CocaError) as caught:
            coca.predict(other, "a")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "objective, frames, call, sentence",
    [
        ("", 0, lambda coca: coca.predict(IMAGES), "this model has no head: adapt it"),
        ("", 0, lambda coca: coca.predict_videos([IMAGES]), "was not trained on clips: use predict"),
        ("vqa", 0, lambda coca: coca.predict(IMAGES), "the head of objective vqa needs a text for each example"),
        (
            "classification",
            0,
            lambda coca: coca.predict(IMAGES, "a"),
            "the head of objective classification takes no te",
        ),
        ("classification", 0, lambda coca: coca.predict_videos([IMAGES]), "was not trained on clips: use predict"),
        ("pairs", 0, lambda coca: coca.predict_videos([IMAGES]), "was not trained on clips: use predict"),
        ("vqa", 0, lambda coca: coca.predict(IMAGES, ["a"]), "there are 1 texts for 9 images: give one for each"),
        (
            "classification",
            0,
            lambda coca: coca.caption(IMAGES),
            "gives no captions: it was trained for classification: give the run",
        ),
        (
            "entailment",
            0,
            lambda coca: coca.answer(IMAGES, "a"),
            "gives no captions: it was trained for entailment: give the run",
        ),
        ("vqa", 0, lambda coca: coca.embed_images(IMAGES), "gives no embeddings: it was trained for vqa: give the run"),
        ("vqa", 0, lambda coca: coca.predict(IMAGES, "a red thing " * 20), "and the model reads 16: shorten it"),
    ],
)
def test_what_a_model_cannot_do_is_said_in_a_sentence(objective, frames, call, sentence):
    coca = tiny_coca.adapted(objective, frames) if objective else tiny_coca.coca()
    with pytest.raises(CocaError, match=sentence) as caught:
        call(coca)
    assert "\n" not in str(caught.value)


def test_long_texts_are_cut_where_that_is_asked_for():
    long, asked, ends = "a red thing " * 20, tiny_coca.adapted("vqa"), tiny_coca.adapted("entailment")
    for coca in (asked, ends):
        assert coca.head_probabilities(IMAGES[:2], long, "truncate").shape == (2, 3)
    assert asked.answer(IMAGES[:2], long, long_text="truncate") == asked.answer(
        IMAGES[:2], long + "red", long_text="truncate"
    )
    assert len(asked.answer(IMAGES[:2], long, in_words=True, long_text="truncate")) == 2
