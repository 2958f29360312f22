import dataclasses
import json

import numpy as np
import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation import answers
from coca_jax.evaluation.answers import ask
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.suite import evaluate
from tests import tiny
from tests.data import builders
from tests.evaluation import tiny_coca

COUNT = 37  # no multiple of anything
TASKS = ("retrieval", "classification", "likelihood_classification", "captioning")


class Shelf:
    """Pictures that are read when asked for; `broken` ones cannot be."""

    def __init__(self, pictures: np.ndarray, broken=()):
        self._pictures, self._broken = pictures, broken
        self.shape, self.dtype = pictures.shape, pictures.dtype
        self.unreadable, self.largest = {}, 0

    def __len__(self):
        return len(self._pictures)

    def __getitem__(self, rows):
        self.largest = max(self.largest, len(rows))
        self.unreadable |= {int(row): "not an image" for row in rows if row in self._broken}
        found = self._pictures[rows]
        found[np.isin(rows, self._broken)] = 0
        return found


def held_out(images, tasks=TASKS) -> EvaluationSet:
    targets = np.arange(COUNT) % 3
    labels = ["red", "blue one", "green thing"]
    return EvaluationSet(
        name="things",
        images=images,
        captions=[(tiny_coca.TEXTS[i % 6], f"a thing {'and a thing' * (i % 2)}".strip()) for i in range(COUNT)],
        meaning=lambda text: text,
        classifications=[Classification("color", labels, ["a {}", "{} and {}"], np.arange(COUNT), targets)],
        sentences=["a red thing"],
        asked=builders.evaluation_dataset(tasks=tasks, match="image"),
        image_ids=range(100, 100 + COUNT),
    )


@pytest.fixture(scope="module")
def in_memory():
    return evaluate(tiny_coca.coca(), held_out(tiny_coca.pictures(COUNT)), gallery=5)


def test_pictures_read_on_the_way_give_what_pictures_in_memory_do(in_memory):
    shelf = Shelf(tiny_coca.pictures(COUNT))
    found = evaluate(tiny_coca.coca(), held_out(shelf), gallery=5)
    assert found.metrics == in_memory.metrics and found.captions == in_memory.captions
    assert shelf.largest <= tiny_coca.BATCH  # never more than a batch at a time
    for example, expected in zip(found.gallery, in_memory.gallery, strict=True):
        np.testing.assert_array_equal(example.image, expected.image)
        assert (example.generated, example.retrieved) == (expected.generated, expected.retrieved)
    assert set(found.captions) == set(range(100, 100 + COUNT))
    for key in ("image_to_text_r1", "zero_shot_color", "likelihood_color_mean_per_class", "caption_cider"):
        assert f"things/{key}" in found.metrics


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 2, 1)])
def test_a_mesh_changes_no_digit(in_memory, shape):
    tasks = ("retrieval", "classification")
    found = evaluate(tiny_coca.coca(tiny.mesh(*shape)), held_out(Shelf(tiny_coca.pictures(COUNT)), tasks), gallery=5)
    assert len(found.metrics) > 10
    assert found.metrics == {key: in_memory.metrics[key] for key in found.metrics}


def test_unreadable_pictures_are_counted_and_nothing_else_changes():
    broken, tasks = (0, 5, 36), ("retrieval", "classification")
    pictures = tiny_coca.pictures(COUNT)
    found = evaluate(tiny_coca.coca(), held_out(Shelf(pictures, broken), tasks), gallery=50)
    assert found.unreadable == {"not an image": 3} and found.metrics["things/unreadable"] == 3
    assert found.metrics["things/images"] == len(found.gallery) == COUNT - 3
    whole, kept = held_out(pictures, tasks), np.setdiff1d(np.arange(COUNT), broken)
    (task,) = whole.classifications
    expected = dataclasses.replace(
        whole,
        images=pictures[kept],
        captions=[whole.captions[i] for i in kept],
        classifications=[dataclasses.replace(task, indices=np.arange(len(kept)), targets=task.targets[kept])],
        image_ids=[whole.image_ids[i] for i in kept],
    )
    left = evaluate(tiny_coca.coca(), expected, gallery=0)
    assert {**left.metrics, "things/unreadable": 3} == found.metrics
    with pytest.raises(CocaError, match="none of the 37 held-out records of things can be read"):
        ask(tiny_coca.coca(), held_out(Shelf(pictures, tuple(range(COUNT)))), embed=True, caption=False)


def test_pictures_that_another_process_could_not_read_are_left_out_with_their_causes(monkeypatch):
    shelf = Shelf(tiny_coca.pictures(COUNT), (0, 5))
    others = [b"", json.dumps([[36, "damaged image"], [5, "not an image"]]).encode()]
    monkeypatch.setattr(answers.hosts, "from_each", lambda own: [own, *others])
    found = ask(tiny_coca.coca(), held_out(shelf), embed=True, caption=False)
    assert found.unreadable == {"not an image": 2, "damaged image": 1}
    assert len(found.embeddings_ME) == COUNT - 3 and not set(found.rows) & {0, 5, 36}


def test_likelihoods_of_unreadable_pictures_are_left_out():
    broken = Shelf(tiny_coca.pictures(COUNT), (1, 2))
    whole = held_out(tiny_coca.pictures(COUNT))
    found, all_of_them = (
        ask(tiny_coca.coca(), one, embed=False, caption=False, likelihoods=one.classifications)
        for one in (dataclasses.replace(whole, images=broken), whole)
    )
    np.testing.assert_array_equal(
        found.likelihoods["color"].predicted, np.delete(all_of_them.likelihoods["color"].predicted, (1, 2))
    )
    assert found.part(whole.classifications[0])[0].tolist() == list(range(COUNT - 2))


def test_a_clip_is_the_mean_of_its_frames():
    clips = tiny_coca.pictures(12).reshape(3, 4, tiny_coca.SIZE, tiny_coca.SIZE, 3)
    asked = builders.evaluation_dataset(tasks=("video_retrieval",), frames=4)
    videos = EvaluationSet("clips", Shelf(clips), [("x",)] * 3, str, asked=asked)
    found = ask(tiny_coca.coca(), videos, embed=True, caption=False).embeddings_ME
    result = evaluate(tiny_coca.coca(), videos, gallery=1)
    assert "clips/text_to_video_r1" in result.metrics and result.gallery[0].image.shape == clips.shape[2:]
    mean = tiny_coca.coca().embed_images(tiny_coca.pictures(12)).reshape(3, 4, -1).mean(axis=1)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5)
