"""VQA's accuracy; the expected values are worked out by hand from the mean over leaving out one of the answers."""

import pytest

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.vqa_accuracy import vqa_accuracy


def people(**counts: int) -> list[str]:
    """So many people who gave each answer; _ is a space."""
    return [answer.replace("_", " ") for answer, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    "predicted, answers, expected",
    [
        # Ten answers: of n equal ones, n choices of nine leave n - 1 of them and 10 - n leave n.
        ("yes", people(yes=10), 1),
        ("yes", people(no=10), 0),
        ("yes", people(yes=1, no=9), (1 * 0 + 9 * 1 / 3) / 10),
        ("yes", people(yes=2, no=8), (2 * 1 / 3 + 8 * 2 / 3) / 10),
        ("yes", people(yes=3, no=7), (3 * 2 / 3 + 7 * 1) / 10),
        ("yes", people(yes=4, no=6), 1),
        ("yes", people(yes=9, no=1), 1),
        ("maybe", people(yes=5, no=5), 0),
        # Ties: both answers are right.
        ("yes", people(yes=5, no=5), 1),
        ("no", people(yes=5, no=5), 1),
        ("red", people(red=3, blue=3, green=3, white=1), 0.9),
        ("blue", people(red=3, blue=3, green=3, white=1), 0.9),
        ("white", people(red=3, blue=3, green=3, white=1), 0.3),
        # Normalised together, where people differ: articles, case, numbers, contractions, marks.
        ("a dog", people(dog=3, cat=7), 0.9),
        ("dog", people(a_dog=1, the_dog=1, Dog=1, cat=7), 0.9),
        ("THE DOG", people(dog=2, cat=8), 0.6),
        ("two", [*people(two=2, three=7), "2"], 0.9),
        ("2", people(two=1, three=9), 0.3),
        ("none", [*people(one=8), "0", "0"], 0.6),
        ("zero", people(none=3, one=7), 0.9),
        ("dont know", [*people(yes=8), "don't know", "dont know"], 0.6),
        ("t shirt", [*people(shirt=9), "t-shirt"], 0.3),
        ("tshirt", [*people(shirt=9), "t-shirt"], 0),
        ("red/white", people(red_white=4, red=6), 1),
        ("red, white", people(red_white=3, red=7), 0.9),
        ("1,000", people(many=7) + ["1000"] * 3, 0.9),
        ("1000", people(many=8) + ["1,000"] * 2, 0.6),
        ("3.5", [*people(many=9), "3.5"], 0.3),
        ("35", [*people(many=9), "3.5"], 0),
        ("yes.", people(yes=4, no=6), 1),
        (" yes\n", people(yes=4, no=6), 1),
        ("10:30", [*people(noon=9), "1030"], 0),
        ("the", [*people(yes=9), "a"], 0.3),  # both are empty
        # Where people agree letter by letter, answers are compared as they stand, except for the spaces around them.
        ("2", people(two=10), 0),
        ("2", people(two=1), 1),  # a single answer
        ("two", people(two=10), 1),
        ("Yes", people(yes=10), 0),
        ("dog", people(a_dog=10), 0),
        ("a dog", people(a_dog=10), 1),
        (" yes\n", people(yes=10), 1),
        ("yes", ["yes "] * 4 + ["\tyes"] * 6, 1),
        ("Yes", people(yes=9, Yes=1), 1),
        # Fewer answers; of fewer than four, all others must agree.
        ("yes", people(yes=4), 1),
        ("yes", people(yes=3, no=1), (3 * 2 / 3 + 1 * 1) / 4),
        ("yes", people(yes=1, no=4), (1 * 0 + 4 * 1 / 3) / 5),
        ("yes", people(yes=2, no=3), (2 * 1 / 3 + 3 * 2 / 3) / 5),
        ("yes", people(yes=3), 1),
        ("yes", people(yes=2, no=1), (2 * 1 / 2 + 1 * 1) / 3),
        ("yes", people(yes=2), 1),
        ("yes", people(yes=1, no=1), (1 * 0 + 1 * 1) / 2),
        ("yes", people(yes=1), 1),
        ("no", people(yes=1), 0),
    ],
)
def test_the_accuracy_by_hand(predicted, answers, expected):
    assert vqa_accuracy(predicted, answers) == pytest.approx(expected)


def test_a_question_without_answers_has_no_accuracy():
    with pytest.raises(CocaError, match="no answers"):
        vqa_accuracy("yes", [])
