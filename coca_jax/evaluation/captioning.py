"""Captions that say what the picture shows: equivalence decided by the data set's own canonical form."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from coca_jax.distributed import processes as hosts
from coca_jax.errors import CocaError
from coca_jax.evaluation.meaning import Meaning, canonical
from coca_jax.evaluation.metrics.captions import external, scores

_JAVA = tuple(name for name in scores.METRICS if name not in scores.WITHOUT_JAVA)


def equivalents(generated: Sequence[str], captions: Sequence[Sequence[str]], meaning: Meaning) -> np.ndarray:
    """bool [M]: whether each generated caption says the same as one of its image's true captions."""
    right = [{canonical(true, meaning) for true in own} for own in captions]
    return np.array([canonical(text, meaning) in own for text, own in zip(generated, right, strict=True)], dtype=bool)


def caption_metrics(generated: Sequence[str], captions: Sequence[Sequence[str]], meaning: Meaning) -> dict[str, float]:
    """Shares of the M images whose generated caption is right.

    Args:
      generated: M captions.
      captions: for each image its true captions, at least one.
      meaning: see `EvaluationSet.meaning`.

    Returns:
      `caption_equivalent`: says the same as a true caption.
      `caption_exact`: is a true caption, word for word (up to spacing).
      `caption_parsed`: has a meaning at all, right or wrong.
    """
    true_words = [[true.split() for true in own] for own in captions]
    exact = [text.split() in own for text, own in zip(generated, true_words, strict=True)]
    parsed = [meaning(text) is not None for text in generated]
    return {
        "caption_equivalent": _share(equivalents(generated, captions, meaning)),
        "caption_exact": _share(exact),
        "caption_parsed": _share(parsed),
    }


def reference_scores(
    generated: Sequence[str], captions: Sequence[Sequence[str]], wanted: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """BLEU, CIDEr and the like, as `caption_bleu_4`, `caption_cider`, …

    Args:
      generated: M captions.
      captions: for each image its references, at least one.
      wanted: names of `caption_metrics.scores.METRICS`.

    Returns:
      The figures, and a sentence for each that cannot be had here.
    """
    captions = dict(enumerate(generated)), dict(enumerate(captions))
    own = [name for name in wanted if name not in _JAVA]
    found = scores.score(*captions, own).corpus if own else {}
    missing: list[str] = []
    java = [name for name in wanted if name in _JAVA]
    if java:  # on one host alone, for it takes long and much memory; hosts need not all have it
        more, missing = json.loads(hosts.from_first(lambda: json.dumps(_java_scores(*captions, java)).encode()))
        found |= more
    return {f"caption_{name}": value for name, value in found.items()}, missing


def _java_scores(
    generated: Mapping[int, str], captions: Mapping[int, Sequence[str]], wanted: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """The figures, and a sentence for each that cannot be had: Java's trouble must not cost what needs none."""
    found: dict[str, float] = {}
    missing: list[str] = []
    for name in wanted:
        try:
            found |= scores.score(generated, captions, [name]).corpus
        except CocaError as error:
            missing.append(str(error))
    return found, missing


def lacking(wanted: Collection[str]) -> list[str]:
    """A sentence for each of the `wanted` scores that cannot be had on this machine."""
    found = []
    for name in _JAVA:
        try:
            if name in wanted:
                external.check_available(name)
        except CocaError as error:
            found.append(str(error))
    return found


def constant_answer(captions: Sequence[Sequence[str]], meaning: Meaning) -> float:
    """The `caption_equivalent` of the best single caption given to every image: the level that looking must beat."""
    counts = Counter(key for own in captions for key in {canonical(text, meaning) for text in own})
    return max(counts.values(), default=0) / len(captions) if captions else float("nan")


def _share(flags) -> float:
    return float(np.mean(flags)) if len(flags) else float("nan")
