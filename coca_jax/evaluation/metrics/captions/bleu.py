"""BLEU-1 to BLEU-4 with several references: Papineni et al., "BLEU", ACL 2002, as the COCO evaluation computes it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

Words = Sequence[str]
NGram = tuple[str, ...]

MAX_ORDER = 4  # BLEU-4 and CIDEr both look at one to four words
# COCO's guards against 0 / 0. They are part of the published figures: a caption without a right 4-gram scores not 0
# but about 1e-4 of one with one.
_TINY = 1e-15
_SMALL = 1e-9


def ngram_counts(words: Words) -> list[Counter[NGram]]:
    """How often each n-gram occurs: a counter for every order from 1 to MAX_ORDER."""
    return [Counter(zip(*(words[start:] for start in range(order)), strict=False)) for order in range(1, MAX_ORDER + 1)]


class BleuCounts(NamedTuple):
    """The counts of a caption that BLEU is a function of."""

    length: int  # words
    reference_length: int  # of the reference closest in length
    candidates: tuple[int, ...]  # n-grams, for each order
    matches: tuple[int, ...]  # those that a reference has, each as often as the reference that has it most often


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


def bleu(captions: Sequence[BleuCounts]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4 of a corpus, from the sums of its captions' counts.

    BLEU-n = BP · (Π_{k ≤ n} matches_k / candidates_k)^(1/n), where the brevity penalty BP is 1 for candidates at least
    as long as their references and exp(1 - reference_length / length) for shorter ones.

    >>> one, two, *_ = bleu([bleu_counts("a dog runs".split(), ["a dog ran".split()])])
    >>> round(one, 6), round(two, 6)
    (0.666667, 0.57735)
    """
    lengths, reference_lengths, candidates, matches = zip(*captions, strict=True)
    ratio = (sum(lengths) + _TINY) / (sum(reference_lengths) + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for order in range(MAX_ORDER):
        product *= (sum(own[order] for own in matches) + _TINY) / (sum(own[order] for own in candidates) + _SMALL)
        scores.append(penalty * product ** (1 / (order + 1)))
    return tuple(scores)
