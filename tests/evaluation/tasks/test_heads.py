"""The tasks of a head: their metrics by kind, and the cards of the report's galleries."""

import numpy as np
import pytest

from coca_jax.evaluation.dataset import Classification, EvaluationDataset
from coca_jax.evaluation.predict import Predictions
from coca_jax.evaluation.report import galleries
from coca_jax.evaluation.tasks.base import TaskResult, shown_images
from coca_jax.evaluation.tasks.head_classification import HeadClassification
from coca_jax.evaluation.tasks.vqa import Vqa
from coca_jax.pages.blocks import Card, Gallery, Table
from tests.evaluation.fakes import with_tasks

CLASSES = ("red", "blue", "green")
# The examples' classes, and what the head gives: the second and the fourth are wrong, the fourth with more confidence.
TARGETS = np.array([0, 1, 2, 0])
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0], [0.05, 0.95, 0.0]], np.float32)
QUESTIONS = ["what?", "which?", "who?", "why?"]


def dataset(shape=(4, 8, 8, 3), **fields) -> EvaluationDataset:
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return EvaluationDataset("things", with_tasks("vqa"), images, **fields)


def classified(shape=(4, 8, 8, 3), **fields) -> tuple[EvaluationDataset, TaskResult]:
    """A dataset with classes, of which the third image cannot be read, and the head's result on it."""
    task = Classification("class", CLASSES, ("{}",), np.arange(4), TARGETS)
    truths = [(CLASSES[target],) for target in TARGETS]
    data = dataset(shape, captions=truths, classifications=(task,), **fields)
    return data, HeadClassification().compute(data, PREDICTIONS)


PREDICTIONS = Predictions(
    rows=np.array([0, 1, 3]),
    classes=CLASSES,
    head_probabilities=PROBABILITIES[[0, 1, 3]],
    answers=["red", "blue", "a red one"],
)


def cards(data: EvaluationDataset, result: TaskResult, count: int) -> dict[str, list[Card]]:
    """The cards of each gallery."""
    blocks = galleries(data, PREDICTIONS, result.image_texts, count)
    return {block.title: list(block.cards) for block in blocks if isinstance(block, Gallery)}


def texts(card: Card) -> list[tuple]:
    return [(line.label, line.text, line.mark) for line in card.lines]


def test_accuracy_of_a_head_by_kind():
    _, result = classified(kinds=("small", "large", "large", "large"))
    assert result.metrics["accuracy"] == pytest.approx(1 / 3)
    assert (result.metrics["accuracy_small"], result.metrics["accuracy_large"]) == (1, 0)
    assert result.baselines["accuracy"] == pytest.approx(2 / 3) == result.tiles[0].baseline
    (table,) = [block for block in result.blocks if isinstance(block, Table)]
    assert list(table.rows) == [("large", "0.0%", "2"), ("small", "100%", "1")]


def test_a_card_shows_the_statement_both_images_and_the_classes():
    data, result = classified((4, 2, 8, 8, 3), texts=QUESTIONS, text_name="statement", kinds=("both", "x_y", "", "a"))
    shown = cards(data, result, 2)
    assert list(shown) == ["Examples", "Most confident mistakes"]
    right, wrong = shown["Examples"]
    assert texts(right) == [("statement", "what?", None), ("predicted", "red (80.0%)", True), ("truth", "red", None)]
    assert texts(wrong)[1:] == [("predicted", "blue (95.0%)", False), ("truth", "red", None)]
    np.testing.assert_array_equal(right.images, data.images[0])
    (mistake,) = shown["Most confident mistakes"]  # of the examples that are not shown already
    assert texts(mistake)[0] == ("statement", "which?", None) and mistake.lines[0].note == "x y"
    layouts = [block.layout for block in galleries(data, PREDICTIONS, result.image_texts, 2)]
    assert layouts == ["wide", "wide"]


def test_the_most_confident_mistake_comes_first():
    data, result = classified()
    labels = [texts(card)[0][1] for card in cards(data, result, 0)["Most confident mistakes"]]
    assert labels == ["blue (95.0%)", "green (60.0%)"]


def test_a_clip_is_a_strip_of_frames_in_order():
    data = dataset((4, 8, 8, 8, 3), captions=[("",)] * 4)
    (frames,) = shown_images(data, [1], most=4)
    np.testing.assert_array_equal(frames, data.images[1][[1, 3, 5, 7]])
    assert [len(own) for own in shown_images(data, [0, 1])] == [1, 1]
    assert shown_images(dataset((4, 5, 6), captions=[]), [0, 1]) == [[], []]  # stored tokens


ANSWERS = [["red"] * 10, ["blue"] * 7 + ["navy"] * 3, ["none"] * 10, ["red"] * 10]


def test_answers_chosen_and_in_words_beside_the_question_and_people_s_answers():
    kinds = ("color", "color", "color", "yes/no")
    data = dataset(captions=[("",)] * 4, texts=QUESTIONS, text_name="question", kinds=kinds, answers=ANSWERS)
    result = Vqa().compute(data, PREDICTIONS)
    assert result.metrics == pytest.approx(
        {
            "vqa_accuracy": 1 / 3,
            "vqa_accuracy_in_words": 2 / 3,
            "vqa_accuracy_color": 0.5,
            "vqa_accuracy_in_words_color": 1,
            "vqa_accuracy_yes_no": 0,
            "vqa_accuracy_in_words_yes_no": 0,
        }
    )
    # Always "red" for colors, and "red" for the other kind.
    assert result.baselines["vqa_accuracy"] == pytest.approx(2 / 3) and result.baselines["vqa_accuracy_color"] == 0.5
    (table,) = [block for block in result.blocks if isinstance(block, Table)]
    assert list(table.rows) == [("color", "50.0%", "100%", "50.0%", "2"), ("yes/no", "0.0%", "0.0%", "100%", "1")]
    second = texts(cards(data, result, 3)["Examples"][1])
    assert second == [
        ("question", "which?", None),
        ("answered", "green (60.0%)", False),
        ("truth", "blue ×7, navy ×3", None),
        ("in words", "blue", True),
    ]


def test_without_people_s_answers_there_are_only_those_for_the_server():
    data = dataset(captions=[("",)] * 4, texts=QUESTIONS, text_name="question", question_ids=[7, 8, 9, 10])
    result = Vqa().compute(data, PREDICTIONS)
    assert not result.metrics and result.submissions == {"answers": {7: "red", 8: "green", 10: "blue"}}
    assert texts(cards(data, result, 1)["Examples"][0]) == [
        ("question", "what?", None),
        ("answered", "red (80.0%)", None),
    ]
