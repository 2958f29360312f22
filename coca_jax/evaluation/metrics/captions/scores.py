"""All captioning metrics by name, of raw captions."""

import dataclasses
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from coca_jax.errors import CocaError
from coca_jax.evaluation.metrics.captions import external
from coca_jax.evaluation.metrics.captions.bleu import BleuCounts, bleu, bleu_counts
from coca_jax.evaluation.metrics.captions.cider import DocumentFrequencies, cider, document_frequencies
from coca_jax.evaluation.metrics.captions.ngrams import MAX_ORDER
from coca_jax.evaluation.metrics.captions.ptb_tokenizer import tokenize
from coca_jax.evaluation.metrics.captions.rouge import rouge_l

METRICS = ("bleu", "rouge_l", "cider", "meteor", "spice")
WITHOUT_JAVA = ("bleu", "rouge_l", "cider")
BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, MAX_ORDER + 1))

ImageId = Hashable


@dataclasses.dataclass(frozen=True)
class Scores:
    """`corpus` has a figure for each of bleu_1 … bleu_4, rouge_l, cider, …; `per_image` the same for each image.

    A corpus' BLEU is that of its summed counts and not the mean of its images' scores; the others are means.
    """

    corpus: dict[str, float]
    per_image: dict[ImageId, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class _Captions:
    """Tokenised captions, image by image in the same order."""

    candidates: list[str]
    references: list[list[str]]
    frequencies: DocumentFrequencies | None


# The corpus' figures, and for each image its own.
_Result = tuple[dict[str, float], list[dict[str, float]]]


def score(
    candidates: Mapping[ImageId, str],
    references: Mapping[ImageId, Sequence[str]],
    metrics: Iterable[str] = WITHOUT_JAVA,
    *,
    tokenizer: Callable[[str], str] = tokenize,
    frequencies: DocumentFrequencies | None = None,
) -> Scores:
    """Scores one caption an image against the captions that people wrote for it.

    Args:
      candidates: a caption for each image. An empty one is right about nothing: 0 everywhere.
      references: for each image at least one caption; images may have different numbers of them.
      metrics: names of METRICS. "meteor" and "spice" need Java and pycocoevalcap.
      tokenizer: makes a caption words separated by spaces; `str` for captions that are tokenised already.
      frequencies: CIDEr's document frequencies; by default those of these references, as published scores have.

    Raises:
      CocaError: a metric is unknown, or lacks what it needs; or candidates and references do not fit each other.
    """
    metrics = tuple(metrics)
    for name in metrics:
        if name not in METRICS:
            raise CocaError(f"there is no captioning metric {name!r}: choose among {', '.join(METRICS)}")
    for name in ("meteor", "spice"):
        if name in metrics:
            external.check_available(name)  # before minutes of other work
    check_captions(candidates, references)
    captions = _Captions(
        [tokenizer(candidates[image]) for image in references],
        [[tokenizer(caption) for caption in own] for own in references.values()],
        frequencies,
    )
    corpus: dict[str, float] = {}
    per_image: dict[ImageId, dict[str, float]] = {image: {} for image in references}
    for name in dict.fromkeys(metrics):
        figures, rows = _SCORERS[name](captions)
        corpus |= figures
        for own, row in zip(per_image.values(), rows, strict=True):
            own |= row
    return Scores(corpus, per_image)


def check_captions(candidates: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]]) -> None:
    """Raises a CocaError unless every image has one candidate caption and at least one reference."""
    if not references:
        raise CocaError("there are no images to score captions of: the references are empty")
    for missing, kind in (
        ([image for image in references if image not in candidates], "references but no candidate caption"),
        ([image for image in candidates if image not in references], "a candidate caption but no references"),
    ):
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CocaError(f"image {missing[0]!r}{others} has {kind}: score exactly the images that have both")
    for image, own in references.items():
        if isinstance(own, str) or not own or not all(isinstance(caption, str) and caption.strip() for caption in own):
            raise CocaError(f"the references of image {image!r} have to be a list of captions, none of them empty")
        if not isinstance(candidates[image], str):
            raise CocaError(
                f"image {image!r} needs one caption as a string: the metrics compare one with the references"
            )


def _means(rows: list[dict[str, float]]) -> _Result:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}, rows


def _bleu(captions: _Captions) -> _Result:
    counts = [
        bleu_counts(candidate.split(), [reference.split() for reference in references])
        for candidate, references in zip(captions.candidates, captions.references, strict=True)
    ]
    total = sum(counts, BleuCounts())
    return dict(zip(BLEU_NAMES, bleu(total), strict=True)), [
        dict(zip(BLEU_NAMES, bleu(own), strict=True)) for own in counts
    ]


def _rouge_l(captions: _Captions) -> _Result:
    # COCO splits at single spaces here, which leaves numbers such as "1\u00a01/2" whole and takes "" for a word.
    return _means(
        [
            {"rouge_l": rouge_l(candidate.split(" "), [reference.split(" ") for reference in references])}
            for candidate, references in zip(captions.candidates, captions.references, strict=True)
        ]
    )


def _cider(captions: _Captions) -> _Result:
    references = [[caption.split() for caption in own] for own in captions.references]
    frequencies = captions.frequencies or document_frequencies(references)
    return _means(
        [
            {"cider": cider(candidate.split(), own, frequencies)}
            for candidate, own in zip(captions.candidates, references, strict=True)
        ]
    )


def _external(name: str, run: external.Scorer) -> Callable[[_Captions], _Result]:
    def scorer(captions: _Captions) -> _Result:
        corpus, rows = run(captions.candidates, captions.references)
        return {name: corpus}, [{name: value} for value in rows]

    return scorer


_SCORERS: dict[str, Callable[[_Captions], _Result]] = {
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "cider": _cider,
    "meteor": _external("meteor", external.meteor),
    "spice": _external("spice", external.spice),
}
