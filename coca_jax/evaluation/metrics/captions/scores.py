"""All captioning metrics by name, of raw captions."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions import java_metrics
from coca_jax.evaluation.metrics.captions.bleu import MAX_ORDER, Words, bleu, bleu_counts
from coca_jax.evaluation.metrics.captions.cider import cider, document_frequencies
from coca_jax.evaluation.metrics.captions.ptb_tokenizer import tokenize
from coca_jax.evaluation.metrics.captions.rouge import rouge_l

BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))
JAVA = ("meteor", "spice")  # metrics that need Java and pycocoevalcap

# (tokenised candidates, tokenised references of each) -> the corpus' score, or several
_Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], float | dict[str, float]]


def score(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = ("bleu", "rouge_l", "cider"),
    *,
    tokenizer: Callable[[str], str] = tokenize,
) -> dict[str, float]:
    """Scores one caption an image against the captions that people wrote for it.

    Args:
      candidates: a caption for each image. An empty one is right about nothing: 0 everywhere.
      references: for each image at least one caption.
      metrics: names of METRICS.
      tokenizer: makes a caption words separated by spaces; `str` for captions that are tokenised already.

    Returns:
      The corpus' bleu_1 … bleu_4 (of its summed counts), rouge_l, cider … (means over images).

    Raises:
      CocaError: a metric is unknown, or lacks what it needs; or an image has no reference.
    """
    for name in metrics:
        if name not in METRICS:
            raise CocaError(f"there is no captioning metric {name!r}: choose among {', '.join(METRICS)}")
        if name in JAVA:
            java_metrics.check_available(name)  # before minutes of other work
    if not metrics:
        return {}
    for i, own in enumerate(references):
        if not own or not all(caption.strip() for caption in own):
            raise CocaError(f"image {i} has no references, or an empty one: give each image captions of people")
    words = [tokenizer(text) for text in candidates]
    true_words = [[tokenizer(caption) for caption in own] for own in references]
    scores: dict[str, float] = {}
    for name in metrics:
        found = METRICS[name](words, true_words)
        scores |= found if isinstance(found, dict) else {name: found}
    return scores


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    counts = [bleu_counts(*pair) for pair in _words(candidates, references)]
    return dict(zip(BLEU_NAMES, bleu(counts), strict=True))


def _rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    # COCO splits at single spaces here, which leaves numbers such as "1\u00a01/2" whole and takes "" for a word.
    return statistics.fmean([rouge_l(*pair) for pair in _words(candidates, references, " ")])


def _cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    pairs = _words(candidates, references)
    frequencies = document_frequencies(own for _, own in pairs)
    return statistics.fmean([cider(*pair, frequencies) for pair in pairs])


def _words(
    candidates: Sequence[str], references: Sequence[Sequence[str]], separator: str | None = None
) -> list[tuple[Words, list[Words]]]:
    pairs = zip(candidates, references, strict=True)
    return [(candidate.split(separator), [text.split(separator) for text in own]) for candidate, own in pairs]


METRICS: Mapping[str, _Scorer] = {
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "cider": _cider,
    "meteor": java_metrics.meteor,
    "spice": java_metrics.spice,
}
