"""Every argument of every public method of Coca and Index: natural forms are taken, others refused in one sentence."""

import inspect
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from coca_jax.embedding_index.index import Index
from coca_jax.errors import CocaError
from coca_jax.inference.model import Coca
from tests.inference import tiny_coca

IMAGES = tiny_coca.images()[:2]
LABELS = ["red", "blue"]


def _file(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def _truncated() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    return Image.open(io.BytesIO(_file(noise)[:2000]))


def _names(index: Index) -> list[str]:
    return [entry.name for entry in index.entries]


def _labels(predictions) -> list[str]:
    return [one.label for one in predictions]


def _add(images, names=None) -> Index:
    index = tiny_coca.coca().index(IMAGES[:0])
    index.add(images, names)
    return index


def _index() -> Index:
    return tiny_coca.coca().index(IMAGES)


# Calls by "method.argument". Each takes the value of that argument alone.
TEXTS = {
    "embed_texts.texts": lambda coca, x: coca.embed_texts(x),
    "text_classifier.labels": lambda coca, x: coca.text_classifier(x, ["{}"]),
    "class_probabilities.labels": lambda coca, x: coca.class_probabilities(IMAGES, x),
    "classify.labels": lambda coca, x: coca.classify(IMAGES, x),
    "caption_log_likelihoods.texts": lambda coca, x: coca.caption_log_likelihoods(IMAGES, x),
}
TEMPLATES = {
    "text_classifier.templates": lambda coca, x: coca.text_classifier(LABELS, x),
    "class_probabilities.templates": lambda coca, x: coca.class_probabilities(IMAGES, LABELS, x),
    "classify.templates": lambda coca, x: coca.classify(IMAGES, LABELS, x),
}
PROMPTS = {
    "caption.prompts": lambda coca, x: coca.caption(IMAGES, prompts=x),
    "answer.questions": lambda coca, x: coca.answer(IMAGES, x),
    "predict.texts": lambda coca, x: _labels(tiny_coca.adapted("vqa").predict(IMAGES, x)),
    "head_probabilities.texts": lambda coca, x: tiny_coca.adapted("entailment").head_probabilities(IMAGES, x).tolist(),
}
IMAGE_LISTS = {
    "embed_images.images": lambda coca, x: coca.embed_images(x),
    "class_probabilities.images": lambda coca, x: coca.class_probabilities(x, LABELS),
    "classify.images": lambda coca, x: coca.classify(x, LABELS),
    "caption.images": lambda coca, x: coca.caption(x),
    "caption_log_likelihoods.images": lambda coca, x: coca.caption_log_likelihoods(x, LABELS),
    "answer.images": lambda coca, x: coca.answer(x, "a"),
    "predict.images": lambda coca, x: _labels(tiny_coca.adapted("classification").predict(x)),
    "head_probabilities.images": lambda coca, x: tiny_coca.adapted("vqa").head_probabilities(x, "a"),
    "index.images": lambda coca, x: np.concatenate(coca.index(x)._parts),
    "add.images": lambda coca, x: np.concatenate(_add(x)._parts[1:]),
}
NAMES = {
    "index.names": lambda coca, x: _names(coca.index(IMAGES, x)),
    "add.names": lambda coca, x: _names(_add(IMAGES, x)),
}
WHOLE_NUMBERS = {
    "caption.seed": (lambda coca, x: coca.caption(IMAGES, seed=x), -1),
    "answer.seed": (lambda coca, x: coca.answer(IMAGES, "a", seed=x), 2**32),
    "embed_videos.frames": (lambda coca, x: coca.embed_videos([IMAGES], x), 0),
    "search.k": (lambda coca, x: _index().search("red", x), 0),
}
OTHERS = {
    "caption.options": (lambda coca, x: coca.caption(IMAGES, x), [None, {}, {"beams": 2}, "beams"]),
    "answer.options": (lambda coca, x: coca.answer(IMAGES, "a", x), [None, {"beams": 2}]),
    "embed_texts.long_text": (lambda coca, x: coca.embed_texts(LABELS, x), ["cut", None]),
    "caption_log_likelihoods.long_text": (
        lambda coca, x: coca.caption_log_likelihoods(IMAGES, LABELS, long_text=x),
        ["cut", None],
    ),
    "head_probabilities.long_text": (
        lambda coca, x: tiny_coca.adapted("vqa").head_probabilities(IMAGES, "a", x),
        ["cut", None],
    ),
    "answer.long_text": (lambda coca, x: coca.answer(IMAGES, "a", long_text=x), ["cut", None]),
    "embed_videos.clips": (lambda coca, x: coca.embed_videos(x, 2), [None, 3, {"a.gif"}, [None], "absent.mp4", b"no"]),
    "predict_videos.clips": (
        lambda coca, x: tiny_coca.adapted("classification", 2).predict_videos(x),
        [None, 3, {"a.gif"}, [None], "absent.mp4", b"no"],
    ),
    "search.query": (lambda coca, x: _index().search(x), [None, 3, {"a", "b"}, [None], pathlib.Path("absent.png")]),
    "save.place": (lambda coca, x: _index().save(x), ["gs://bucket/index", "/dev/null/index"]),
    "save.dtype": (lambda coca, x: _index().save("/dev/null/index", x), ["float64", None, np.float16]),
    "load_index.folder": (lambda coca, x: coca.load_index(x), ["gs://bucket/index", "absent"]),
    "load.place": (lambda coca, x: Index.load(coca, x), ["gs://bucket/index", "absent"]),
}
# Of Index, methods for callers that have embeddings and rows already.
INTERNAL = {"append", "keep"}


def test_every_public_method_is_in_a_table():
    methods = {
        name for of in (Coca, Index) for name, member in inspect.getmembers(of, callable) if not name.startswith("_")
    }
    tables = (TEXTS, TEMPLATES, PROMPTS, IMAGE_LISTS, NAMES, WHOLE_NUMBERS, OTHERS)
    covered = {entry.partition(".")[0] for table in tables for entry in table}
    assert covered == methods - INTERNAL


def _equal(found, expected) -> None:
    if isinstance(expected, list):
        assert found == expected
    else:
        np.testing.assert_allclose(found, expected, atol=1e-5)


def _is_refused(call, value, words: str = ".") -> None:
    with pytest.raises(CocaError, match=words) as caught:
        call(tiny_coca.coca(), value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("entry", TEXTS)
def test_texts_may_be_any_ordered_iterable(entry):
    coca, call = tiny_coca.coca(), TEXTS[entry]
    expected = call(coca, LABELS)
    for form in (tuple(LABELS), np.array(LABELS), (label for label in LABELS), dict.fromkeys(LABELS)):
        _equal(call(coca, form), expected)
    for one in ("red", b"red", np.str_("red")):
        _is_refused(call, one, "put the one text into a list")
    for other in (None, 3, np.array("red"), [b"red"], [None], [["red"]], ["red", float("nan")]):
        _is_refused(call, other, "give a")
    _is_refused(call, ["red " * 20], "and the model reads 16: shorten it$")
    if entry != "classify.labels":
        _is_refused(call, set(LABELS), "order is undefined")


def test_labels_of_a_classification_may_be_a_set():
    assert set(tiny_coca.coca().classify(IMAGES, set(LABELS))) <= set(LABELS)


def test_empty_lists_of_texts():
    coca = tiny_coca.coca()
    assert coca.embed_texts([]).shape == (0, 16)
    assert coca.caption_log_likelihoods(IMAGES, []).shape == (2, 0)
    for entry in ("text_classifier.labels", "class_probabilities.labels", "classify.labels"):
        _is_refused(TEXTS[entry], [], "at least one label")
    assert _index().search([]) == []


@pytest.mark.parametrize("entry", TEMPLATES)
def test_templates_may_be_functions(entry):
    coca, call = tiny_coca.coca(), TEMPLATES[entry]
    expected = call(coca, ["a {}", "{} one"])
    for form in ([lambda name: f"a {name}", "{} one".format], np.array(["a {}", "{} one"]), iter(["a {}", "{} one"])):
        _equal(call(coca, form), expected)
    for one in ("a {}", b"a {}", lambda name: name):
        _is_refused(call, one, "put the one template into a list")
    for other in ([], ["a"], [None], None, {"a {}", "{} one"}, [lambda name: 3]):
        _is_refused(call, other)


@pytest.mark.parametrize("entry", PROMPTS)
def test_prompts_are_one_text_for_all_or_one_for_each(entry):
    coca, call = tiny_coca.coca(), PROMPTS[entry]
    expected = call(coca, "red")
    for form in (["red", "red"], ("red", "red"), np.array(["red", "red"]), iter(["red", "red"]), np.str_("red")):
        assert call(coca, form) == expected
    for other in (b"red", None, 3, {"red", "blue"}, [b"red", b"red"], [None, None]):
        _is_refused(call, other)
    _is_refused(call, ["red"], r"1 (prompts|texts) for 2 images")
    _is_refused(call, "red " * 20, "and the model reads 16: shorten it$")


@pytest.mark.parametrize("entry", IMAGE_LISTS)
def test_images_may_be_one_image_or_an_iterable(entry, tmp_path):
    coca, call = tiny_coca.coca(), IMAGE_LISTS[entry]
    path = tmp_path / "image.png"
    path.write_bytes(_file(IMAGES[0]))
    one = call(coca, [IMAGES[0]])
    for form in (Image.fromarray(IMAGES[0]), path, str(path), _file(IMAGES[0]), IMAGES[0], IMAGES[0] / 255):
        _equal(call(coca, form), one)
    gray = np.repeat(IMAGES[0, :, :, :1], 3, axis=2)
    _equal(call(coca, gray[:, :, 0]), call(coca, [gray]))
    two = call(coca, list(IMAGES))
    for form in (IMAGES, tuple(IMAGES), (image for image in IMAGES), [path, IMAGES[1]]):
        _equal(call(coca, form), two)
    assert len(call(coca, [])) == 0
    refused = (
        None,
        3,
        np.array(3.0),
        {path},
        [None],
        [3],
        [_truncated()],
        _truncated(),
        ["absent.png"],
        b"none",
        tmp_path,
    )
    for other in refused:
        _is_refused(call, other)


@pytest.mark.parametrize("entry", NAMES)
def test_names_are_one_for_each_image(entry):
    coca, call = tiny_coca.coca(), NAMES[entry]
    for form in (["a", "b"], np.array(["a", "b"]), iter("ab"), (pathlib.Path("a"), "b")):
        assert call(coca, form) == ["a", "b"]
    for other in ("ab", b"ab", {"a", "b"}, 3, [], ["a"], ["a", "b", "c"]):
        _is_refused(call, other)


@pytest.mark.parametrize("entry", WHOLE_NUMBERS)
def test_whole_numbers_are_checked(entry):
    call, outside = WHOLE_NUMBERS[entry]
    assert len(call(tiny_coca.coca(), np.int64(2)))
    for other in (outside, None, "3", 2.5, True):
        _is_refused(call, other, f"{entry.partition('.')[2]} ")


@pytest.mark.parametrize("entry", OTHERS)
def test_impossible_values_are_refused_in_one_sentence(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, values = OTHERS[entry]
    for value in values:
        _is_refused(call, value)


def test_a_clip_may_stand_for_a_list_of_one(tmp_path):
    coca, path = tiny_coca.coca(), tmp_path / "image.png"
    path.write_bytes(_file(IMAGES[0]))
    clip = np.stack([IMAGES[0], IMAGES[1]])
    np.testing.assert_allclose(coca.embed_videos(clip, 2), coca.embed_videos([clip], 2), atol=1e-5)
    still = coca.embed_videos([path], 2)
    for form in (path, str(path), path.read_bytes(), Image.fromarray(IMAGES[0]), iter([path])):
        np.testing.assert_allclose(coca.embed_videos(form, 2), still, atol=1e-5)
    assert coca.embed_videos([], 2).shape == (0, 16)


def test_queries_may_be_one_or_many(tmp_path):
    index = _index()
    one = index.search("red", 2)
    for form in (["red"], ("red",), np.array(["red"]), iter(["red"])):
        assert index.search(form, 2) == [one]
    assert index.search(np.str_("red"), 2) == one
    names = [[hit.name for hit in hits] for hits in index.search(IMAGES, 2)]
    assert names == [[hit.name for hit in index.search(image, 2)] for image in IMAGES]
