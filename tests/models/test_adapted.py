"""Heads, and models with a head: shapes, masks, the order of frames, and what a question's outputs know."""

import functools

import jax
import numpy as np
import pytest
import tiny

from coca_jax.models import coca
from coca_jax.models.adapted import TextImageClassifier, VisualClassifier
from coca_jax.models.heads import Head
from coca_jax.objectives.adaptation import TEXT_BRANCHES

CLASSES, BATCH, FRAMES = 5, 3, 4
CONFIG = tiny.config().model
VISION = coca.Branches(contrastive=False, captioning=False)


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (BATCH, *shape, 16, 16, 3)).astype(np.uint8)


@functools.cache
def _text() -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, L] and which of them are valid."""
    ids = tiny.batch(tiny.config(train__batch_size=BATCH))["text"]
    return ids, ids != tiny.PAD


class _Model:
    """A model with random parameters: its logits and hidden states."""

    def __init__(self, model):
        self.model = model
        self.params = tiny.spread_parameters(coca.abstract_parameters(model)[0])
        self._encode = jax.jit(lambda images: model.apply({"params": self.params}, images, method="encode"))
        self._apply = jax.jit(lambda *inputs: model.apply({"params": self.params}, *inputs))

    def __call__(self, images, *text):
        return self._apply(self._encode(images), *text)


def _visual(**parts) -> VisualClassifier:
    return VisualClassifier(CONFIG, VISION, classes=CLASSES, **parts)


@functools.cache
def _reader(images_per_example: int = 0) -> _Model:
    model = TextImageClassifier(
        CONFIG, TEXT_BRANCHES, images_per_example=images_per_example, classes=CLASSES, generates=True
    )
    return _Model(model)


def test_at_first_all_classes_are_equally_likely():
    model = _visual()
    params = coca.init(model, jax.random.key(0))
    assert set(params) == {"image_encoder", "head"}  # the decoder is discarded
    tokens = model.apply({"params": params}, _images(), method="encode")
    assert tokens.shape == (BATCH, 1, 4, CONFIG.width)
    logits = model.apply({"params": params}, tokens).logits_BC
    assert logits.shape == (BATCH, CLASSES) and logits.dtype == np.float32 and not np.any(logits)


def test_only_with_frame_positions_does_the_order_of_frames_count():
    clips, order = _images(FRAMES), np.array([2, 0, 3, 1])
    without = _Model(_visual(images_per_example=FRAMES))
    found = without(clips).logits_BC
    assert found.shape == (BATCH, CLASSES) and np.ptp(found, axis=0).min() > 1e-3
    np.testing.assert_allclose(without(clips[:, order]).logits_BC, found, atol=1e-5)
    positioned = _Model(_visual(images_per_example=FRAMES, frame_positions=True))
    assert positioned.params["head_frames"]["positions"].shape == (FRAMES, CONFIG.width)
    found = positioned(clips).logits_BC
    assert np.abs(positioned(clips[:, order]).logits_BC - found).max() > 1e-3


def test_a_head_reads_the_tokens_of_its_mask_alone():
    head = Head(CONFIG, CLASSES)
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(BATCH, 2, 6, CONFIG.width)).astype(np.float32)
    mask = np.arange(6)[None] < np.array([[2], [4], [6]])
    shapes = jax.eval_shape(lambda: coca.nn.unbox(head.init(jax.random.key(0), tokens, mask)))
    variables = tiny.spread_parameters(shapes)
    found = head.apply(variables, tokens, mask)
    hidden = np.where(mask[:, None, :, None], tokens, 7.0).astype(np.float32)
    np.testing.assert_array_equal(head.apply(variables, hidden, mask), found)
    shown = tokens + np.where(np.arange(6) == 1, 1.0, 0.0)[None, None, :, None].astype(np.float32)
    assert np.abs(head.apply(variables, shown, mask) - found).max(axis=1).min() > 1e-3
    assert np.abs(head.apply(variables, tokens) - found)[:2].max(axis=1).min() > 1e-3  # without a mask it reads all


def test_what_stands_under_a_pad_changes_nothing():
    ids, valid = _text()
    assert not valid.all()
    expected, other = _reader()(_images(), ids, valid, valid), np.where(valid, ids, 9)
    found = _reader()(_images(), other, valid, valid)
    np.testing.assert_array_equal(found.logits_BC, expected.logits_BC)
    np.testing.assert_array_equal(found.hidden_MLD[valid], expected.hidden_MLD[valid])


def test_a_questions_logits_know_nothing_of_the_answer_after_it():
    ids, _ = _text()
    ids = np.where(ids == tiny.PAD, 5, ids)
    valid, asked = np.ones(ids.shape, bool), np.broadcast_to(np.arange(ids.shape[1]) < 4, ids.shape)
    expected = _reader()(_images(), ids, valid, asked)
    answered = np.where(asked, ids, ids % 7 + 4)
    assert (answered != ids).any()
    found = _reader()(_images(), answered, valid, asked)
    np.testing.assert_allclose(found.logits_BC, expected.logits_BC, atol=1e-6)
    assert np.abs(found.hidden_MLD - expected.hidden_MLD)[~asked].max() > 1e-2
    # So the answer may be left out, as it is when a question is asked.
    bare = _reader()(_images(), np.where(asked, ids, tiny.PAD), asked, asked)
    np.testing.assert_allclose(bare.logits_BC, expected.logits_BC, atol=1e-6)
    others = np.where(np.arange(ids.shape[1]) == 2, ids % 7 + 4, ids)
    assert np.abs(_reader()(_images(), others, valid, asked).logits_BC - expected.logits_BC).max() > 1e-2


def test_the_outputs_of_a_pairs_images_are_concatenated():
    (ids, valid), left, right = _text(), _images(), _images()[::-1]

    def logits(*pair, ids=ids):
        return np.asarray(_reader(2)(np.stack(pair, axis=1), ids, valid, valid).logits_BC)

    found, turned = logits(left, right), logits(right, left)
    assert found.shape == (BATCH, CLASSES) and np.abs(found - turned).max() > 1e-2
    # Each image has its own half of the classifier's kernel: the sums over both orders are the same.
    np.testing.assert_allclose(found + turned, logits(left, left) + logits(right, right), rtol=1e-4, atol=1e-4)
    # Both are read with the pair's own text.
    other = ids.copy()
    other[0, 1] = ids[0, 1] % 7 + 4
    changed = np.abs(logits(left, right, ids=other) - found).max(axis=1)
    assert changed[0] > 1e-3 and changed[1:].max() < 1e-5


def test_only_of_single_images_texts_are_generated():
    assert _reader().model.can_caption and not _reader(2).model.can_caption


@pytest.mark.parametrize("images", [_images(3), _images()], ids=["another number of frames", "no frames"])
def test_images_of_another_form_are_refused(images):
    with pytest.raises(AssertionError):
        _Model(_visual(images_per_example=FRAMES))(images)


def test_a_decoder_reads_the_tokens_of_all_frames_and_a_clips_embedding_is_the_mean_of_its_frames():
    model = coca.Coca(CONFIG, images_per_example=FRAMES)
    params = tiny.spread_parameters(coca.abstract_parameters(model)[0])
    assert jax.tree.map(np.shape, params) == jax.tree.map(
        lambda x: x.shape, coca.abstract_parameters(coca.Coca(CONFIG))[0]
    )
    pooled = functools.partial(model.apply, {"params": params}, method="encode_image")
    clip, frames = pooled(_images(FRAMES)), [pooled(frame) for frame in np.moveaxis(_images(FRAMES), 1, 0)]
    np.testing.assert_allclose(
        clip.tokens_BQD, np.concatenate([one.tokens_BQD for one in frames], axis=1), rtol=1e-4, atol=1e-4
    )
    embeddings = [one.embedding_BD / np.linalg.norm(one.embedding_BD, axis=-1, keepdims=True) for one in frames]
    np.testing.assert_allclose(clip.embedding_BD, np.mean(embeddings, axis=0), rtol=1e-4, atol=1e-4)
