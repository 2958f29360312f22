"""All tasks: determinism, splits, shapes, and texts that do not give the answers away."""

from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from coca_jax.data.digit_scenes import rendering
from coca_jax.data.digit_scenes.language import DIGITS, meaning
from coca_jax.data.digit_scenes.scenes import SPLITS, TRAINING_DIGITS
from coca_jax.data.digit_scenes.tasks import CLASSES, task_plan, task_scene, task_words

SHAPES = dict(digits=(), questions=(), entailment=(), pairs=(2,), actions=(8,))  # before [size, size, 3]


@pytest.fixture
def sources(monkeypatch):
    """The numbers of the written digits drawn so far."""
    numbers = []
    start = rendering.Stroke.__init__

    def record(self, source, *arguments):
        numbers.append(source)
        start(self, source, *arguments)

    monkeypatch.setattr(rendering.Stroke, "__init__", record)
    return numbers


@pytest.mark.parametrize("index", [0, 7, 10**12, 2**62 + 5])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", CLASSES)
def test_an_example_follows_from_its_index(task, split, index):
    other = task_scene(task, index + 1, split, 44)
    first, again = task_scene(task, index, split, 44), task_scene(task, index, split, 44)
    assert np.array_equal(first.image, again.image) and first[1:] == again[1:] == task_words(task, index, split)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (*SHAPES[task], 44, 44, 3) and first.image.dtype == np.uint8


@pytest.mark.parametrize("task", CLASSES)
def test_held_out_handwriting_never_occurs_in_training(task, sources):
    for index in range(400):
        task_scene(task, index, "train", 32)
    training = set(sources)
    sources.clear()
    for index in range(400):
        task_scene(task, index, "evaluation", 32)
    assert max(training) < TRAINING_DIGITS <= min(sources)
    assert len(training) > 300 and len(set(sources)) > 200


@pytest.mark.parametrize("task", CLASSES)
def test_the_writing_is_that_of_the_form(task, sources):
    classes = rendering.digits()[2]
    for index in range(100):
        sources.clear()
        task_scene(task, index, "train", 32)
        things = [thing for form in task_plan(task, index, "train")[1].forms for thing in form.things]
        assert [DIGITS[classes[source]] for source in sources] == [thing.digit for thing in things]


@pytest.mark.parametrize("task", CLASSES)
def test_every_class_occurs_and_none_is_frequent(task):
    labels = Counter(task_words(task, index).label for index in range(4_000))
    assert set(labels) == set(range(len(CLASSES[task]))) and len(set(CLASSES[task])) == len(CLASSES[task])
    if task != "questions":  # whose kinds have answers of their own
        assert max(labels.values()) / 4_000 < 1 / len(CLASSES[task]) + 0.03


def test_each_held_out_digit_is_shown_ten_times(sources):
    sizes = Counter()
    for index in range(3_000):
        words = task_words("digits", index, "evaluation")
        task_scene("digits", index, "evaluation", 16)
        sizes[sources[-1], words.kind] += 1
        assert words.kind in words.text.split()
    assert sizes == {(n, size): 5 for n in range(TRAINING_DIGITS, 1_797) for size in ("small", "large")}


@pytest.mark.parametrize("split", SPLITS)
def test_a_single_digits_caption_names_its_class(split):
    for index in range(300):
        text, label, kind = task_words("digits", index, split)
        (thing,) = meaning(text).things
        assert (thing.digit, thing.size) == (CLASSES["digits"][label], kind)


@pytest.mark.parametrize("task", ["questions", "entailment", "pairs"])
def test_a_text_alone_does_not_tell_the_answer(task):
    examples = [task_words(task, index) for index in range(6_000)]
    held_out = [task_words(task, index, "evaluation") for index in range(2_000)]
    for kind in sorted({words.kind for words in examples}):
        training, testing = ([words for words in split if words.kind == kind] for split in (examples, held_out))
        vectorizer = CountVectorizer(ngram_range=(1, 3), token_pattern=r"\w+")
        bayes = MultinomialNB().fit(
            vectorizer.fit_transform([words.text for words in training]), [words.label for words in training]
        )
        labels = [words.label for words in testing]
        accuracy = np.mean(bayes.predict(vectorizer.transform([words.text for words in testing])) == labels)
        # Chance among the kind's answers, and three standard deviations of the sample.
        chance = 1 / len(set(labels))
        assert accuracy < chance + 0.02 + 3 * np.sqrt(chance * (1 - chance) / len(labels)), (kind, accuracy)
