"""ROUGE-L: Lin, "ROUGE", ACL 2004 workshop, as the COCO evaluation computes it."""

from collections import defaultdict
from collections.abc import Sequence

from coca_jax.evaluation.metrics.captions.bleu import Words

_BETA_SQUARED = 1.2**2  # recall weighs more than precision


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """The F-measure (1 + β²)PR / (R + β²P), β = 1.2, of the longest common subsequences with the references.

    P = max LCS / len(candidate) and R = max LCS / len(reference): the two maxima may come from different references.

    >>> round(rouge_l(["a", "dog"], [["a", "brown", "dog"]]), 6)
    0.772152
    """
    common = [common_subsequence(candidate, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True) if length)
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def common_subsequence(first: Words, second: Words) -> int:
    """The length of the longest common subsequence of two texts.

    Row by row as usual, with a whole row in the bits of one integer: bit i is 0 where the length grows at word i
    (Hyyrö, "Bit-parallel LCS-length computation revisited", AWOCA 2004).
    """
    places: defaultdict[str, int] = defaultdict(int)  # where each word stands in `first`
    for place, word in enumerate(first):
        places[word] |= 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matches = row & places[word]
        row = (row + matches | row - matches) & every
    return len(first) - row.bit_count()
