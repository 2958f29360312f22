"""The accuracy of visual question answering, as VQA v2's official evaluation and server compute it."""

from collections.abc import Sequence

from coca_jax.data.text.answers import answer_score, normalized, stripped


def vqa_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """The score of an answer against those of (usually ten) people; see `answers.answer_score`.

    Answers are compared in their normalised form, but, as in the official evaluation, those on which all people agree
    letter by letter as they stand: of ten "two" a predicted "2" is wrong. (A single answer, which VQA v2 has not, is
    normalised too: the classes of a run are.)

    >>> vqa_accuracy("Two", ["2"] * 3 + ["3"] * 7)
    0.9

    Raises:
      CocaError: there are no answers.
    """
    truths = [stripped(answer) for answer in answers]
    same = normalized if len(truths) == 1 or len(set(truths)) > 1 else stripped
    return answer_score([same(truth) for truth in truths].count(same(predicted)), len(truths))
