"""VQA v2's normal form of answers, and the targets and classes that training makes of them."""

import pytest

from coca_jax.data.text.answers import answer_score, most_frequent_answers, normalized, soft_targets


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("Yes", "yes"),
        ("  yes \n", "yes"),
        ("yes\tsir", "yes sir"),
        ("the dog", "dog"),
        ("An apple and a pear", "apple and pear"),
        ("the", ""),  # nothing is left
        ("another theory", "another theory"),  # articles are whole words
        ("two", "2"),
        ("None", "0"),
        ("ten zero", "10 0"),
        ("eleven", "eleven"),  # numbers in words end with ten
        ("someone", "someone"),
        ("dont know", "don't know"),
        ("don't know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # with both apostrophes missing it is not in the table
        ("yall'd've", "y'all'd've"),
        ("oclock", "o'clock"),
        ("somebody'd", "somebodyd"),  # the table's one entry the other way round
        ("Im", "im"),  # "Im" is in the table, but the answer is in lower case by then
        ("its", "its"),
        ("red/blue", "red blue"),  # a mark between letters is a space
        ("t-shirt", "t shirt"),
        ("red / blue", "red blue"),  # beside a space it goes, and the spaces stay
        ("yes!", "yes"),
        ("hello, you", "hello you"),
        ("hello,you", "hello you"),
        ("a, b-c", "b c"),  # "-" has no space beside it, "," does
        ("1,000", "1000"),  # a comma in a number takes all marks away
        ("1,000 t-shirts", "1000 tshirts"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("3.", "3"),
        ("st. john's", "st john's"),  # apostrophes are no marks
        ("a.m.", "am"),
        ("10:30", "10:30"),  # colons are no marks
        ("50%", "50%"),
        ("", ""),
        ("?", ""),
        ("." * 40 + "x", "." * 8 + "x"),  # at most 32 periods are taken away
    ],
)
def test_an_answer_s_normal_form(answer, expected):
    assert normalized(answer) == expected


def test_the_scores_of_ten_answers_are_those_that_classifiers_are_trained_on():
    assert [answer_score(matches, 10) for matches in range(11)] == pytest.approx([0, 0.3, 0.6, 0.9] + 7 * [1])


def test_targets_are_the_scores_of_the_distinct_answers():
    answers = ["a dog", "dog", "Dog.", "puppy", "two dogs", "2 dogs", "the", "The", "the", "cat"]
    targets = soft_targets(answers)
    assert targets == pytest.approx({"dog": 0.9, "puppy": 0.3, "2 dogs": 0.6, "cat": 0.3})
    assert soft_targets(["a dog"] * 10) == {"dog": 1.0}  # as classes are, agreement or not
    assert soft_targets(["red"]) == {"red": 1.0} and soft_targets([]) == {}


def test_classes_are_the_most_frequent_answers_and_equally_frequent_ones_by_name():
    answers = ["no", "two", "yes", "yes", "2", "a dog", "dog", "the", "the", "the", "cat"]
    assert most_frequent_answers(answers, 9) == ("2", "dog", "yes", "cat", "no")
    assert most_frequent_answers(reversed(answers), 4) == ("2", "dog", "yes", "cat")
    assert most_frequent_answers([], 3) == ()
