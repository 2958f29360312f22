"""Answers of visual question answering: VQA v2's normalisation, its score of an answer, and training targets from both.

The rules are those of the official evaluation (vqaEval.py of GT-Vision-Lab/VQA, commit a013f00), oddities included. The
score is that of arXiv 1505.00468, §3, averaged over all choices of nine from the ten human answers.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from coca_jax.errors import CocaError

_NUMBERS = dict(zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True))
_NUMBERS["none"] = "0"
_ARTICLES = ("a", "an", "the")
# Each is also recognised with any one of its apostrophes missing.
_CONTRACTIONS = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't
    not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're what's what've when's where'd
    where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
    y'all'd've y'all'll you'd you'd've you'll you're you've
""".split()
_WHOLE = {
    word[:place] + word[place + 1 :]: word for word in _CONTRACTIONS for place in range(len(word)) if word[place] == "'"
} | {"somebody'd": "somebodyd"}  # the one entry of the official table that takes an apostrophe away
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # the official pattern means to spare the one after a digit, too, and does not
_MOST_PERIODS = 32  # re.UNICODE, which stands in the place of `count` there
_ENOUGH = 3  # other people with the same answer make it right


def stripped(answer: str) -> str:
    """The answer without line ends, tabs and outer spaces; all that happens to answers on which everybody agrees."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalized(answer: str) -> str:
    """The answer in the form in which answers are compared; it may be empty.

    >>> normalized("The two dogs, dont")
    "2 dogs don't"
    """
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(stripped(answer)).lower().split())
    return " ".join(_WHOLE.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Takes marks away if they stand at a space, or any number has a comma; other marks become spaces."""
    result, has_number = text, bool(_COMMA_IN_NUMBER.search(text))
    for mark in _MARKS:
        apart = has_number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if apart else " ")
    return _PERIOD.sub("", result, count=_MOST_PERIODS)


def answer_score(matches: int, answers: int) -> float:
    """The score of an answer that `matches` of so many `answers` of people equal: the mean over leaving one of them out of

        min(1, matches among the others / 3)

    which of ten answers is 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more matches. Among fewer than four answers, for
    which the formula never gives 1, the 3 is the number of the others, and a single answer has the score 1.

    >>> [round(answer_score(matches, 10), 3) for matches in range(5)]
    [0.0, 0.3, 0.6, 0.9, 1.0]

    Raises:
      CocaError: there are no answers.
    """
    if not answers:
        raise CocaError("a question has no answers, by which an answer could be scored: leave it out")
    if answers == 1:
        return float(matches)
    enough = min(_ENOUGH, answers - 1)
    own, others = min(1.0, (matches - 1) / enough), min(1.0, matches / enough)
    return (matches * own + (answers - matches) * others) / answers


def soft_targets(answers: Sequence[str]) -> dict[str, float]:
    """The score of each distinct answer of people, normalised: the targets that a classifier over answers is trained on.

    >>> soft_targets(["a dog"] * 9 + ["puppy"])
    {'dog': 1.0, 'puppy': 0.3}

    An answer of which the normalisation leaves nothing ("the") is no target.
    """
    counts = Counter(map(normalized, answers))
    scores = {answer: answer_score(count, len(answers)) for answer, count in counts.items()}
    return {answer: score for answer, score in scores.items() if answer}


def most_frequent_answers(answers: Iterable[str], count: int) -> tuple[str, ...]:
    """The `count` most frequent normalised answers, equally frequent ones by name: the classes of a classifier.

    >>> most_frequent_answers(["yes", "Two", "no", "2"], 2)
    ('2', 'no')

    Args:
      answers: of all training questions, such as the `multiple_choice_answer` of each.
    """
    counts: Counter[str] = Counter()
    for answer, times in Counter(answers).items():
        counts[normalized(answer)] += times
    del counts[""]
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:count])
