"""CIDEr: Vedantam et al., "CIDEr: Consensus-based image description evaluation", CVPR 2015 (arXiv 1411.5726).

What the COCO evaluation prints as CIDEr is the paper's CIDEr-D (§6): counts are clipped to the reference's, and a
difference in length is penalised. There is no stemming.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from coca_jax.evaluation.metrics.captions.bleu import MAX_ORDER, NGram, Words, ngram_counts

_LENGTH_SIGMA = 6.0  # words by which a caption may differ in length before it loses much
_SCALE = 10.0  # so that good captions score about 1 on average


class DocumentFrequencies(NamedTuple):
    """In the references of how many images each n-gram occurs; CIDEr depends on them, and is 0 for a single image."""

    images: int
    counts: Mapping[NGram, int]

    def rarity(self, ngram: NGram) -> float:
        """log(images / df), the weight of an n-gram; one that no reference has weighs as much as one in one image."""
        return math.log(self.images) - math.log(max(1, self.counts.get(ngram, 0)))


class _Vector(NamedTuple):
    """A caption: for each order its n-grams' weights, count · rarity, and their norm."""

    weights: list[dict[NGram, float]]
    norms: list[float]
    length: int


def document_frequencies(references: Iterable[Sequence[Words]]) -> DocumentFrequencies:
    """The frequencies in a corpus of images' references."""
    images = 0
    counts: Counter[NGram] = Counter()
    for own in references:
        images += 1
        counts.update({ngram for words in own for order in ngram_counts(words) for ngram in order})
    return DocumentFrequencies(images, counts)


def cider(candidate: Words, references: Sequence[Words], frequencies: DocumentFrequencies) -> float:
    """The score of one caption: 10 times the mean over references and orders 1 to 4 of the clipped cosine.

    The clipped cosine of a candidate c and a reference r, whose n-grams weigh c_i and r_i, is
    exp(-(l_c - l_r)² / 2·6²) · Σ_i min(c_i, r_i) · r_i / (|c| |r|).

    >>> dog, cat = ["a", "dog"], ["a", "cat"]
    >>> frequencies = document_frequencies([[dog], [cat]])
    >>> round(cider(dog, [dog], frequencies), 6), cider(cat, [dog], frequencies)
    (5.0, 0.0)
    """
    own = _vector(candidate, frequencies)
    total = sum(_similarity(own, _vector(reference, frequencies)) for reference in references)
    return _SCALE * total / MAX_ORDER / len(references)


def _vector(words: Words, frequencies: DocumentFrequencies) -> _Vector:
    weights = [
        {ngram: count * frequencies.rarity(ngram) for ngram, count in counts.items()} for counts in ngram_counts(words)
    ]
    norms = [math.sqrt(sum(weight * weight for weight in order.values())) for order in weights]
    return _Vector(weights, norms, max(0, len(words) - 1))  # COCO counts the bigrams: none in a single word


def _similarity(own: _Vector, other: _Vector) -> float:
    """The sum over orders of the clipped cosines, with the penalty for the length."""
    total = 0.0
    for own_weights, own_norm, weights, norm in zip(own.weights, own.norms, other.weights, other.norms, strict=True):
        if own_norm and norm:
            products = (
                min(weight, weights[ngram]) * weights[ngram]
                for ngram, weight in own_weights.items()
                if ngram in weights
            )
            total += sum(products) / (own_norm * norm)
    return total * math.exp(-((own.length - other.length) ** 2) / (2 * _LENGTH_SIGMA**2))
