import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coca_jax.evaluation.metrics.captions.cider import DocumentFrequencies, cider, document_frequencies

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, max_size=9)
IMAGES = st.lists(st.lists(WORDS, min_size=1, max_size=3), min_size=2, max_size=4)


def test_an_ngram_counts_once_an_image():
    frequencies = document_frequencies([[["a", "a"], ["a", "b"]], [["a"]], [["c"]]])
    assert frequencies.images == 3
    assert frequencies.counts == {("a",): 2, ("b",): 1, ("c",): 1, ("a", "a"): 1, ("a", "b"): 1}
    assert frequencies.rarity(("a",)) == pytest.approx(math.log(3 / 2))
    assert frequencies.rarity(("never", "seen")) == pytest.approx(math.log(3))


def test_by_hand():
    frequencies = DocumentFrequencies(4, {("dog",): 2, ("a",): 4})
    # Rarities: a 0, dog log 2, all else log 4. In units of log 2: dog 1, runs 2, its bigrams 2.
    score = cider(["a", "dog"], [["a", "dog", "runs"]], frequencies)
    unigrams = 1 * 1 / (1 * math.sqrt(1 + 4))
    bigrams = 2 * 2 / (2 * math.sqrt(4 + 4))
    assert score == pytest.approx(10 / 4 * (unigrams + bigrams) * math.exp(-1 / 72))


def test_repeating_a_word_gains_nothing():
    frequencies = DocumentFrequencies(8, {})
    once, twice = (cider(text.split(), [["a", "dog", "ran"]], frequencies) for text in ("a dog sat", "dog dog dog"))
    assert twice < once  # the count is clipped to the reference's


def test_the_penalty_for_length():
    frequencies = DocumentFrequencies(2, {})
    longer = cider(["a"] * 3 + ["b"] * 12, [["a"] * 3], frequencies)
    assert 0 < longer < 10 * math.exp(-(12**2) / 72)


def dense_cider(candidate, references, corpus):
    """The formula with vectors over the whole vocabulary of n-grams."""

    def grams(words, order):
        return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]

    total = 0.0
    for order in range(1, 5):
        vocabulary = sorted({g for texts in [[candidate], references, *corpus] for t in texts for g in grams(t, order)})
        present = np.array([[any(g in grams(t, order) for t in texts) for g in vocabulary] for texts in corpus])
        idf = np.log(len(corpus) / np.maximum(1, present.sum(axis=0))) if vocabulary else np.zeros(0)
        c = np.array([grams(candidate, order).count(g) for g in vocabulary]) * idf
        for reference in references:
            r = np.array([grams(reference, order).count(g) for g in vocabulary]) * idf
            norm = np.linalg.norm(c) * np.linalg.norm(r)
            penalty = np.exp(-((len(candidate) - len(reference)) ** 2) / (2 * 6**2))
            total += penalty * np.minimum(c, r) @ r / norm if norm else 0.0
    return 10 * total / 4 / len(references)


@settings(max_examples=60, deadline=None)
@given(WORDS, IMAGES)
def test_it_equals_the_formula(candidate, images):
    expected = dense_cider(candidate, images[0], images)
    assert cider(candidate, images[0], document_frequencies(images)) == pytest.approx(expected, abs=1e-9)


def test_of_a_single_image_every_ngram_is_common():
    references = [["a", "dog"], ["the", "dog"]]
    assert cider(["a", "dog"], references, document_frequencies([references])) == 0


def test_an_empty_candidate_scores_nothing():
    assert cider([], [["a", "dog"]], DocumentFrequencies(5, {})) == 0
