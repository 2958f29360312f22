"""BLEU-1 to BLEU-4 with several references: Papineni et al., "BLEU", ACL 2002, as the COCO evaluation computes it."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]
NGram = tuple[str, ...]

MAX_ORDER = 4  # BLEU-4 and CIDEr both look at one to four words
# COCO's guards against 0 / 0. They are part of the published figures: a caption without a right 4-gram scores not 0
# but about 1e-4 of one with one.
_TINY = 1e-15
_SMALL = 1e-9


def ngram_counts(words: Words) -> list[Counter[NGram]]:
    """How often each n-gram occurs: a counter for every order from 1 to MAX_ORDER.

    >>> ngram_counts(["a", "dog", "a"])[0]["a",]
    2
    """
    return [Counter(zip(*(words[start:] for start in range(order)), strict=False)) for order in range(1, MAX_ORDER + 1)]


@dataclasses.dataclass(frozen=True)
class BleuCounts:
    """The counts that BLEU is a function of; those of a corpus are the sums of its captions'.

    Attributes:
      length: words in the candidates.
      reference_length: words in the references closest in length.
      candidates: the candidates' n-grams, for each order.
      matches: those of them that a reference has, each as often as the reference that has it most often.
    """

    length: int = 0
    reference_length: int = 0
    candidates: tuple[int, ...] = (0,) * MAX_ORDER
    matches: tuple[int, ...] = (0,) * MAX_ORDER

    def __add__(self, other: "BleuCounts") -> "BleuCounts":
        return BleuCounts(
            self.length + other.length,
            self.reference_length + other.reference_length,
            tuple(map(sum, zip(self.candidates, other.candidates, strict=True))),
            tuple(map(sum, zip(self.matches, other.matches, strict=True))),
        )


def bleu_counts(candidate: Words, references: Sequence[Words]) -> BleuCounts:
    """The counts of one caption; of two references equally close in length the shorter counts."""
    length = len(candidate)
    own = ngram_counts(candidate)
    most: list[Counter[NGram]] = [Counter() for _ in range(MAX_ORDER)]
    for reference in references:
        for order, counts in enumerate(ngram_counts(reference)):
            most[order] |= counts  # the larger of the two counts
    return BleuCounts(
        length,
        min((len(reference) for reference in references), key=lambda other: (abs(other - length), other)),
        tuple(max(0, length - order) for order in range(MAX_ORDER)),
        tuple((counts & allowed).total() for counts, allowed in zip(own, most, strict=True)),
    )


def bleu(counts: BleuCounts) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4.

    BLEU-n = BP · (Π_{k ≤ n} matches_k / candidates_k)^(1/n), where the brevity penalty BP is 1 for candidates at least
    as long as their references and exp(1 - reference_length / length) for shorter ones.

    >>> one, two, *_ = bleu(bleu_counts("a dog runs".split(), ["a dog ran".split()]))
    >>> round(one, 6), round(two, 6)
    (0.666667, 0.57735)
    """
    ratio = (counts.length + _TINY) / (counts.reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for order, (matches, candidates) in enumerate(zip(counts.matches, counts.candidates, strict=True), start=1):
        product *= (matches + _TINY) / (candidates + _SMALL)
        scores.append(penalty * product ** (1 / order))
    return tuple(scores)
