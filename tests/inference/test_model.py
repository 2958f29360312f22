import functools

import jax
import numpy as np
import pytest
from PIL import Image

import coca_jax
from coca_jax.errors import CocaError
from coca_jax.inference import examples
from coca_jax.inference import model as inference
from tests.inference import tiny_coca

SIZE = tiny_coca.SIZE
LABELS, TEMPLATES = ["red", "blue", "green"], ["a {} thing", "{}", "one {} and {braces}"]


@functools.cache
def _one_by_one() -> tuple[np.ndarray, np.ndarray, list[str]]:
    coca, pictures = tiny_coca.coca(), tiny_coca.images()
    texts = [f"a {label} thing" for label in LABELS] * 3
    embeddings = np.concatenate([coca.embed_images(pictures[i : i + 1]) for i in range(9)])
    text_embeddings = np.concatenate([coca.embed_texts([text]) for text in texts])
    return embeddings, text_embeddings, [coca.caption(pictures[i : i + 1])[0] for i in range(9)]


def test_what_it_knows_of_itself():
    coca = tiny_coca.coca()
    assert isinstance(coca, coca_jax.Coca) and coca.step == 7 and coca.can_embed and coca.can_caption
    assert coca.parameter_count == sum(x.size for x in jax.tree.leaves(coca._params)) > 5_000


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
def test_batches_of_any_size_equal_one_by_one(count):
    coca, (embeddings, text_embeddings, captions) = tiny_coca.coca(), _one_by_one()
    found = coca.embed_images(tiny_coca.images()[:count])
    assert found.shape == (count, 16) and found.dtype == np.float32 and isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, embeddings[:count], atol=1e-5)
    found = coca.embed_texts([f"a {label} thing" for label in LABELS * 3][:count])
    assert found.shape == (count, 16) and found.dtype == np.float32
    np.testing.assert_allclose(found, text_embeddings[:count], atol=1e-5)
    assert coca.caption(tiny_coca.images()[:count]) == captions[:count]
    assert coca.caption(list(tiny_coca.images()[:count])) == captions[:count]
    assert coca.classify(tiny_coca.images()[:count], LABELS) == coca.classify(tiny_coca.images(), LABELS)[:count]


def test_generation_keeps_a_copy_of_the_decoder_alone():
    coca = tiny_coca.coca()
    ours, prepared = coca._params, coca._generation._params
    kept = ours.keys() - {"unimodal", "multimodal", "softmax"}
    assert {"image_encoder", "poolers"} <= kept
    for name in kept:
        assert all(a is b for a, b in zip(jax.tree.leaves(prepared[name]), jax.tree.leaves(ours[name]), strict=True))


def test_pictures_differ_and_embeddings_are_normalised():
    embeddings, text_embeddings, captions = _one_by_one()
    for found in (embeddings, text_embeddings):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3
    assert np.abs(text_embeddings[0] - text_embeddings[1]).max() > 1e-3
    assert all(isinstance(caption, str) for caption in captions)


def test_every_form_of_a_picture_agrees(tmp_path):
    coca, picture = tiny_coca.coca(), tiny_coca.images()[0]
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    forms = [
        picture,
        picture / 255,
        (picture / 255).astype(np.float32),
        Image.fromarray(picture),
        path,
        str(path),
        Image.fromarray(picture).convert("RGBA"),
    ]
    found = coca.embed_images(forms)
    np.testing.assert_allclose(found, np.repeat(_one_by_one()[0][:1], len(forms), axis=0), atol=1e-5)
    assert len(set(coca.caption(forms))) == 1
    # One array [N, H, W, 3], floats, one picture [H, W, 3], an iterator.
    np.testing.assert_allclose(coca.embed_images(tiny_coca.images()[:2] / 255), _one_by_one()[0][:2], atol=1e-5)
    np.testing.assert_allclose(coca.embed_images(picture), found[:1], atol=1e-6)
    np.testing.assert_allclose(coca.embed_images(iter([picture])), found[:1], atol=1e-6)
    # Another size is resized, another shape cropped to its centre.
    large = np.kron(picture, np.ones((2, 2, 1), np.uint8))
    wide = np.concatenate([picture[:, :4] * 0, picture, picture[:, :4] * 0], axis=1)
    assert coca.embed_images([large]).shape == (1, 16)
    np.testing.assert_allclose(coca.embed_images([wide]), found[:1], atol=1e-6)
    np.testing.assert_allclose(coca.embed_images(wide[None]), found[:1], atol=1e-6)


def test_long_lists_are_worked_through_in_parts(monkeypatch):
    monkeypatch.setattr(examples, "_IMAGES_AT_ONCE", 2)
    np.testing.assert_allclose(
        tiny_coca.coca().embed_images(list(tiny_coca.images()[:5])), _one_by_one()[0][:5], atol=1e-5
    )


def test_a_text_that_is_too_long_is_named():
    with pytest.raises(CocaError, match=r"'a red thing a red thing a red.*takes .* tokens and the model reads 16"):
        tiny_coca.coca().embed_texts(["a red thing", "a red thing " * 9])


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    coca, path = tiny_coca.coca(), tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(CocaError, match=r"broken.png cannot be read as an image"):
        coca.embed_images([path])
    with pytest.raises(CocaError, match=r"missing.png cannot be read"):
        coca.caption([tmp_path / "missing.png"])


def test_text_classifier_is_the_normalised_mean_of_normalised_prompts():
    coca = tiny_coca.coca()
    prompts = [[template.replace("{}", label) for template in TEMPLATES] for label in LABELS]
    mean = np.stack([coca.embed_texts(row).mean(axis=0) for row in prompts])
    found = coca.text_classifier(LABELS, TEMPLATES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(coca.text_classifier(LABELS, ["{}"]), coca.embed_texts(LABELS), atol=1e-6)


@pytest.mark.parametrize("labels, templates", [([], ["{}"]), (LABELS, []), (LABELS, ["{}", "a thing"])])
def test_unusable_prompts_are_refused(labels, templates):
    with pytest.raises(CocaError, match=r"label|template"):
        tiny_coca.coca().classify(tiny_coca.images(), labels, templates)


def _reference_probabilities(coca, temperature: float) -> np.ndarray:
    scores = (
        coca.embed_images(tiny_coca.images()).astype(np.float64)
        @ coca.text_classifier(LABELS, TEMPLATES).T
        / temperature
    )
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def test_probabilities_are_the_softmax_over_the_temperature():
    coca = tiny_coca.coca()
    found = coca.class_probabilities(tiny_coca.images(), LABELS, TEMPLATES)
    assert found.shape == (9, 3)
    np.testing.assert_allclose(found, _reference_probabilities(coca, 0.07), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert coca.classify(tiny_coca.images(), LABELS, TEMPLATES) == [LABELS[i] for i in found.argmax(axis=1)]


@pytest.mark.parametrize("temperature", [0.004, -0.02])
def test_probabilities_use_the_temperature_that_the_model_trains_with(temperature):
    coca = tiny_coca.coca()  # the parameter may step below the model's bound of 0.01
    below = inference.Coca(coca.config, coca._params | {"temperature": np.float32(temperature)}, coca.vocabulary, 0)
    found = below.class_probabilities(tiny_coca.images(), LABELS, TEMPLATES)
    np.testing.assert_allclose(found, _reference_probabilities(coca, 0.01), atol=1e-3)


def _mean(embeddings: np.ndarray) -> np.ndarray:
    mean = embeddings.mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_a_video_is_the_mean_of_frames_uniformly_sampled(tmp_path):
    coca, pictures, own = tiny_coca.coca(), tiny_coca.images(), _one_by_one()[0]
    # Of nine frames three: the middles of thirds. Of two frames three: the second twice.
    expected = [_mean(own[[1, 4, 7]]), _mean(own[[1, 4, 7]]), _mean(own[[0, 1, 1]])]
    found = coca.embed_videos([pictures, list(pictures), pictures[:2] / 255], 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # One array, with as many frames as asked for and with more; more clips than a batch has.
    clips = np.stack([np.roll(pictures, -shift, axis=0) for shift in range(5)])
    expected = [_mean(own[shift : shift + 3]) for shift in range(5)]
    found = coca.embed_videos(clips[:, :3], 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(coca.embed_videos(clips[:3], 3)[0], _mean(own[[1, 4, 7]]), atol=1e-5)
    assert coca.embed_videos([]).shape == (0, 16)
    wrong = ((tmp_path / "absent.mp4", "the clip .*absent.mp4 cannot be read"), (pictures[:0], "without a frame"))
    for clip, words in wrong:
        with pytest.raises(CocaError, match=words):
            coca.embed_videos([clip])


def test_a_video_file_is_decoded(tmp_path):
    pytest.importorskip("av", reason="clips are decoded by PyAV: pip install av")
    frames = [Image.fromarray(np.full((32, 32, 3), 60 * i, np.uint8)) for i in range(4)]
    path = tmp_path / "clip.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0)
    found = tiny_coca.coca().embed_videos([path, path.read_bytes(), frames], 3)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=0.02)
    path.write_bytes(b"no clip")
    with pytest.raises(CocaError, match=r"clip.gif cannot be read as a clip"):
        tiny_coca.coca().embed_videos([path])


def test_an_index_finds_what_the_embeddings_say_and_belongs_to_its_model(tmp_path):
    coca, pictures = tiny_coca.coca(), tiny_coca.images()
    index = coca.index(pictures, names=map(str, range(100, 109)))
    scores = coca.embed_images(pictures) @ coca.embed_texts(["a red thing"])[0]
    found = index.search("a red thing", 9)
    assert [hit.name for hit in found] == [str(100 + i) for i in np.argsort(-scores, kind="stable")]
    np.testing.assert_allclose([hit.score for hit in found], np.sort(scores)[::-1], atol=1e-6)
    assert index.search(pictures[4], 1)[0].name == "104"
    index.save(tmp_path)
    assert coca.load_index(tmp_path).search("a red thing", 9) == found
    other = inference.Coca(coca.config, coca._params | {"temperature": np.float32(0.05)}, coca.vocabulary, 8)
    with pytest.raises(CocaError, match="another checkpoint"):
        other.load_index(tmp_path)


def test_a_dual_encoder_refuses_to_caption():
    coca = tiny_coca.coca(captioning_weight=0.0)
    assert coca.can_embed and not coca.can_caption
    assert coca.embed_images(tiny_coca.images()[:1]).shape == (1, 16)
    with pytest.raises(
        CocaError, match=r"gives no captions: it was trained with objective.pretraining.captioning_weight = 0"
    ):
        coca.caption(tiny_coca.images())


def test_a_captioner_refuses_to_embed():
    coca = tiny_coca.coca(contrastive_weight=0.0)
    assert not coca.can_embed and len(coca.caption(tiny_coca.images()[:1])) == 1
    for call in (
        lambda: coca.embed_images(tiny_coca.images()),
        lambda: coca.embed_texts(["red"]),
        lambda: coca.classify(tiny_coca.images(), LABELS),
    ):
        with pytest.raises(
            CocaError, match=r"gives no embeddings: it was trained with objective.pretraining.contrastive_weight = 0"
        ):
            call()
