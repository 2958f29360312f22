"""Counts of word n-grams."""

from collections import Counter
from collections.abc import Iterable, Sequence

Words = Sequence[str]
NGram = tuple[str, ...]

MAX_ORDER = 4  # BLEU-4 and CIDEr both look at one to four words


def ngrams(words: Words, order: int) -> Iterable[NGram]:
    """Every run of `order` words, from the first to the last."""
    return zip(*(words[start:] for start in range(order)), strict=False)


def ngram_counts(words: Words) -> list[Counter[NGram]]:
    """How often each n-gram occurs: a counter for every order from 1 to MAX_ORDER."""
    return [Counter(ngrams(words, order)) for order in range(1, MAX_ORDER + 1)]
