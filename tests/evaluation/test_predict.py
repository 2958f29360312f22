"""One pass over a dataset's images for all tasks: on one device, on a mesh, with images that cannot be read."""

import dataclasses
import json

import numpy as np
import pytest

from coca_jax.config import DatasetConfig, EvaluationDatasetConfig, RetrievalConfig
from coca_jax.errors import CocaError
from coca_jax.evaluation import predict as prediction
from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.predict import Needs, TextClassifiers, predict
from tests import tiny
from tests.evaluation import tiny_coca
from tests.evaluation.conftest import CLASSES, normalised
from tests.evaluation.fakes import evaluate, gallery, with_tasks

COUNT = 37  # no multiple of anything
TASKS = ("retrieval", "classification", "likelihood_classification", "captioning")


class Shelf:
    """Images that are read when asked for; `broken` ones cannot be."""

    def __init__(self, images: np.ndarray, broken=()):
        self._images, self._broken = images, broken
        self.shape, self.dtype = images.shape, images.dtype
        self.unreadable, self.largest = {}, 0

    def __len__(self):
        return len(self._images)

    def __getitem__(self, rows):
        self.largest = max(self.largest, len(rows))
        self.unreadable |= {int(row): "not an image" for row in rows if row in self._broken}
        images = self._images[rows]
        images[np.isin(rows, self._broken)] = 0
        return images


def things(images, tasks=TASKS) -> EvaluationDataset:
    targets = np.arange(COUNT) % 3
    labels = ["red", "blue one", "green thing"]
    return EvaluationDataset(
        name="things",
        config=EvaluationDatasetConfig(tasks=tasks, retrieval=RetrievalConfig(match="image")),
        images=images,
        captions=[(tiny_coca.TEXTS[i % 6], f"a thing {'and a thing' * (i % 2)}".strip()) for i in range(COUNT)],
        grammar=lambda text: text,
        classifications=[Classification("color", labels, ["a {}", "{} and {}"], np.arange(COUNT), targets)],
        queries=["a red thing"],
        image_ids=range(100, 100 + COUNT),
    )


def predicted(dataset: EvaluationDataset, **needs):
    coca = tiny_coca.coca()
    return predict(coca, dataset, Needs(**needs), TextClassifiers(coca))


@pytest.fixture(scope="module")
def in_memory():
    return evaluate(tiny_coca.coca(), things(tiny_coca.pictures(COUNT)), gallery=5)


def test_images_read_on_the_way_give_what_images_in_memory_do(in_memory):
    shelf = Shelf(tiny_coca.pictures(COUNT))
    result = evaluate(tiny_coca.coca(), things(shelf), gallery=5)
    assert result.metrics == in_memory.metrics and result.submissions == in_memory.submissions
    assert shelf.largest <= tiny_coca.BATCH  # never more than a batch at a time
    for card, expected in zip(gallery(result, "Examples").cards, gallery(in_memory, "Examples").cards, strict=True):
        np.testing.assert_array_equal(card.images, expected.images)
        assert card.lines == expected.lines
    assert set(result.submissions["captions"]) == set(range(100, 100 + COUNT))
    for key in ("image_to_text_r1", "zero_shot_color", "likelihood_color_mean_per_class", "caption_cider"):
        assert f"things/{key}" in result.metrics


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 2, 1)])
def test_a_mesh_changes_no_digit(in_memory, shape):
    tasks = ("retrieval", "classification")
    result = evaluate(tiny_coca.coca(tiny.mesh(*shape)), things(Shelf(tiny_coca.pictures(COUNT)), tasks), gallery=5)
    assert len(result.metrics) > 10
    assert result.metrics == {key: in_memory.metrics[key] for key in result.metrics}


def test_unreadable_images_are_counted_and_nothing_else_changes():
    broken, tasks = (0, 5, 36), ("retrieval", "classification")
    images = tiny_coca.pictures(COUNT)
    result = evaluate(tiny_coca.coca(), things(Shelf(images, broken), tasks), gallery=50)
    assert result.unreadable == {"not an image": 3} and result.metrics["things/unreadable"] == 3
    assert result.metrics["things/images"] == len(gallery(result, "Examples").cards) == COUNT - 3
    whole, kept = things(images, tasks), np.setdiff1d(np.arange(COUNT), broken)
    (task,) = whole.classifications
    expected = dataclasses.replace(
        whole,
        images=images[kept],
        captions=[whole.captions[i] for i in kept],
        classifications=[dataclasses.replace(task, indices=np.arange(len(kept)), targets=task.targets[kept])],
        image_ids=[whole.image_ids[i] for i in kept],
    )
    left = evaluate(tiny_coca.coca(), expected, gallery=0)
    assert {**left.metrics, "things/unreadable": 3} == result.metrics
    with pytest.raises(CocaError, match="none of the 37 held-out records of things can be read"):
        predicted(things(Shelf(images, tuple(range(COUNT)))), embeddings=True)


def test_images_that_another_process_could_not_read_are_left_out_with_their_causes(monkeypatch):
    shelf = Shelf(tiny_coca.pictures(COUNT), (0, 5))
    others = [b"", json.dumps([[36, "damaged image"], [5, "not an image"]]).encode()]
    monkeypatch.setattr(prediction.hosts, "from_each", lambda own: [own, *others])
    predictions = predicted(things(shelf), embeddings=True)
    assert predictions.unreadable == {"not an image": 2, "damaged image": 1}
    assert len(predictions.image_embeddings) == COUNT - 3 and not set(predictions.rows) & {0, 5, 36}


def test_likelihoods_of_unreadable_images_are_left_out():
    whole = things(tiny_coca.pictures(COUNT))
    broken = dataclasses.replace(whole, images=Shelf(tiny_coca.pictures(COUNT), (1, 2)))
    some, every = (predicted(one, likelihoods=tuple(one.classifications)) for one in (broken, whole))
    np.testing.assert_array_equal(
        some.log_likelihoods["color"], np.delete(every.log_likelihoods["color"], (1, 2), axis=0)
    )
    assert some.part(whole.classifications[0])[0].tolist() == list(range(COUNT - 2))


def test_a_clip_is_the_mean_of_its_frames():
    clips = tiny_coca.pictures(12).reshape(3, 4, tiny_coca.SIZE, tiny_coca.SIZE, 3)
    config = with_tasks("video_retrieval", dataset=DatasetConfig(frames=4))
    videos = EvaluationDataset("clips", config, Shelf(clips), [("x",)] * 3)
    embeddings = predicted(videos, embeddings=True).image_embeddings
    result = evaluate(tiny_coca.coca(), videos, gallery=1)
    assert "clips/text_to_video_r1" in result.metrics
    assert [image.shape for image in gallery(result, "Examples").cards[0].images] == [clips.shape[2:]] * 4
    mean = tiny_coca.coca().embed_images(tiny_coca.pictures(12)).reshape(3, 4, -1).mean(axis=1)
    np.testing.assert_allclose(embeddings, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5)


def test_each_text_is_embedded_once_for_all_tasks(monkeypatch):
    coca, texts = tiny_coca.coca(), []
    embed = type(coca).embed_texts

    def counted(self, some, *args):
        texts.extend(some)
        return embed(self, some, *args)

    monkeypatch.setattr(type(coca), "embed_texts", counted)
    evaluate(coca, things(tiny_coca.pictures(COUNT), ("retrieval", "classification")), gallery=0)
    assert len(texts) == 8 + 6 and len(set(texts[:8])) == 8  # captions with the query among them, then prompts


def test_an_image_is_read_once_for_all_tasks():
    images, reads = tiny_coca.pictures(COUNT), []

    class Counted(Shelf):
        def __getitem__(self, rows):
            reads.extend(rows.tolist())
            return super().__getitem__(rows)

    dataset = things(Counted(images))
    predicted(dataset, embeddings=True, captions=True, likelihoods=tuple(dataset.classifications))
    assert sorted(reads) == list(range(COUNT))


def test_a_text_classifier_is_built_once(random_task):
    coca, dataset, _ = random_task
    (task,), classifiers = dataset.classifications, TextClassifiers(coca)
    first = classifiers(task, "error")
    np.testing.assert_array_equal(classifiers(dataclasses.replace(task), "error"), first)
    assert coca.embedded == CLASSES
    classifiers(dataclasses.replace(task, templates=("{}", "{}")), "error")
    assert coca.embedded == 3 * CLASSES


def test_synonyms_count_alike(random_task):
    coca, dataset, _ = random_task
    names = [("class 0", "class 1"), ("class 2",)]
    task = dataclasses.replace(dataset.classifications[0], labels=["a", "b"], synonyms=names)
    zero, one, two = coca.embed_texts(["class 0", "class 1", "class 2"])
    expected = normalised(np.stack([zero + one, two]))
    np.testing.assert_allclose(TextClassifiers(coca)(task, "error"), expected, atol=1e-6)
