"""Every evaluation of one held-out set: predict once, then pure metrics, and the pictures that a report shows."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from coca_jax.data.evaluation_set import Classification, EvaluationSet
from coca_jax.evaluation import captioning, ranking, retrieval, zero_shot
from coca_jax.evaluation.meaning import NO_LABEL, Meaning, Pool, canonical, pool_of
from coca_jax.inference import text_classifier

_TOP5_ABOVE = 10  # classes; among fewer, five guesses say little
_SEARCH_RESULTS = 8
_MISTAKES = 6


class Model(Protocol):
    """What an evaluation needs of `coca_jax.inference.Coca`."""

    can_embed: bool  # False where the model was trained without the contrastive loss
    can_caption: bool  # False where it was trained without the captioning loss

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] -> float32 [N, E], L2-normalised."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> float32 [N, E], L2-normalised."""

    def caption(self, images: np.ndarray) -> list[str]:
        """uint8 [N, H, W, 3] -> N captions."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One held-out picture and what the model says of it; a part that the model cannot do is None.

    Attributes:
      image: uint8 [H, W, 3].
      caption: its first true caption.
      generated: the caption that the model writes, and whether it says the same as a true one.
      retrieved: the caption that it ranks first in the pool, and whether that one is right.
    """

    image: np.ndarray
    caption: str
    generated: str | None = None
    generated_right: bool | None = None
    retrieved: str | None = None
    retrieved_right: bool | None = None


@dataclasses.dataclass(frozen=True)
class Search:
    """A sentence and the examples whose images rank first for it.

    Attributes:
      examples: the best first; `right`: which of them say the same as the sentence.
      matching: how many images of the whole set do.
    """

    sentence: str
    examples: Sequence[Example]
    right: Sequence[bool]
    matching: int


@dataclasses.dataclass(frozen=True)
class ClassificationOutcome:
    """A zero-shot classification, image by image.

    Attributes:
      name: of the classification; `labels`: of its classes.
      targets, predicted: int [M], classes of the images that took part.
      accuracy: the share of them that is right; ties count as wrong, so it may be below what `predicted` gives.
      mistakes: a few wrong ones, as (image, right label, predicted label), the most confident first.
    """

    name: str
    labels: Sequence[str]
    targets: np.ndarray
    predicted: np.ndarray
    accuracy: float
    mistakes: Sequence[tuple[np.ndarray, str, str]]


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
      name: of the set, the prefix of the keys below.
      metrics: `<set>/image_to_text_r1` and the like as fractions, and the pool's sizes.
      chance: for some of the same keys, what a model reaches that does not look at the picture.
      gallery: pictures spread evenly over the set.
      mistakes: pictures whose caption (without a captioner: whose retrieved caption) is wrong.
      searches, classifications: see there.
    """

    name: str
    metrics: dict[str, float]
    chance: dict[str, float]
    gallery: Sequence[Example] = ()
    mistakes: Sequence[Example] = ()
    searches: Sequence[Search] = ()
    classifications: Sequence[ClassificationOutcome] = ()


def evaluate(coca: Model, evaluation_set: EvaluationSet, gallery: int = 24) -> EvaluationResult:
    """Retrieval, zero-shot classification and captioning, as far as the model can do them.

    Args:
      coca: the model; it batches by itself.
      evaluation_set: at least one held-out pair.
      gallery: how many pictures to keep for the report.
    """
    held_out, name = evaluation_set, evaluation_set.name
    pool = pool_of(held_out.captions, held_out.meaning)
    metrics: dict[str, float] = {
        "images": len(held_out.images), "distinct_captions": len(pool.texts), "distinct_meanings": len(pool.ids)
    }
    chance: dict[str, float] = {}
    examples = [Example(image, own[0]) for image, own in zip(held_out.images, held_out.captions)]
    searches, classifications = [], []
    if coca.can_embed:
        images_ME = coca.embed_images(held_out.images)
        scores, examples = _retrieve(coca, pool, images_ME, examples)
        tasks = [_classify(coca, held_out, task, images_ME) for task in held_out.classifications]
        classifications = [outcome for outcome, _, _ in tasks]
        for found, expected in [(scores.metrics, scores.chance), *(task[1:] for task in tasks)]:
            metrics |= found
            chance |= expected
    if coca.can_caption:
        generated = list(coca.caption(held_out.images))
        metrics |= captioning.caption_metrics(generated, held_out.captions, held_out.meaning)
        chance["caption_equivalent"] = captioning.constant_answer(held_out.captions, held_out.meaning)
        same = captioning.equivalents(generated, held_out.captions, held_out.meaning)
        examples = [
            dataclasses.replace(example, generated=text, generated_right=bool(hit))
            for example, text, hit in zip(examples, generated, same)
        ]
    if coca.can_embed and held_out.sentences:
        searches = _search(coca, held_out.sentences, held_out.meaning, pool, images_ME, examples)
    shown = _spread(len(examples), gallery)
    hidden = sorted(set(range(len(examples))).difference(shown))
    return EvaluationResult(
        name=name,
        metrics={f"{name}/{key}": value for key, value in metrics.items()},
        chance={f"{name}/{key}": value for key, value in chance.items()},
        gallery=[examples[i] for i in shown],
        mistakes=_mistakes([examples[i] for i in hidden]),
        searches=searches,
        classifications=classifications,
    )


def _retrieve(
    coca: Model, pool: Pool, images_ME: np.ndarray, examples: Sequence[Example]
) -> tuple[retrieval.RetrievalScores, list[Example]]:
    texts_TE = coca.embed_texts(pool.texts)
    scores = retrieval.retrieval(images_ME, texts_TE, pool.image_labels, pool.text_labels)
    best = ranking.top(images_ME, texts_TE, 1)[0][:, 0]
    right = (pool.image_labels == pool.text_labels[best][:, None]).any(axis=1)
    return scores, [
        dataclasses.replace(example, retrieved=pool.texts[text], retrieved_right=bool(hit))
        for example, text, hit in zip(examples, best, right)
    ]


def _classify(
    coca: Model, held_out: EvaluationSet, task: Classification, images_ME: np.ndarray
) -> tuple[ClassificationOutcome, dict[str, float], dict[str, float]]:
    classifier_CE = text_classifier(coca.embed_texts, task.labels, task.templates)
    targets = np.asarray(task.targets)
    prediction = zero_shot.predict(images_ME[task.indices], classifier_CE, targets)
    key, classes = f"zero_shot_{task.name}", len(task.labels)
    metrics, chance = {key: ranking.hit_rate(prediction.ranks, 1)}, {key: 1 / classes}
    if classes > _TOP5_ABOVE:
        metrics[f"{key}_top5"], chance[f"{key}_top5"] = ranking.hit_rate(prediction.ranks, 5), 5 / classes
    wrong = np.flatnonzero(prediction.predicted != targets)
    wrong = wrong[np.argsort(-prediction.margins[wrong], kind="stable")][:_MISTAKES]
    outcome = ClassificationOutcome(
        name=task.name,
        labels=task.labels,
        targets=targets,
        predicted=prediction.predicted,
        accuracy=metrics[key],
        mistakes=[
            (held_out.images[task.indices[i]], task.labels[targets[i]], task.labels[prediction.predicted[i]])
            for i in wrong
        ],
    )
    return outcome, metrics, chance


def _search(
    coca: Model,
    sentences: Sequence[str],
    meaning: Meaning,
    pool: Pool,
    images_ME: np.ndarray,
    examples: Sequence[Example],
) -> list[Search]:
    found, _ = ranking.top(coca.embed_texts(list(sentences)), images_ME, _SEARCH_RESULTS)
    searches = []
    for sentence, indices in zip(sentences, found):
        label = pool.ids.get(canonical(sentence, meaning), NO_LABEL)
        same = (pool.image_labels == label).any(axis=1) & (label != NO_LABEL)
        searches.append(Search(sentence, [examples[i] for i in indices], same[indices].tolist(), int(same.sum())))
    return searches


def _spread(size: int, count: int) -> list[int]:
    """At most `count` indices below `size`, evenly spaced: the same pictures in every report of one set."""
    return sorted({int(i) for i in np.linspace(0, size - 1, min(size, count))}) if size and count > 0 else []


def _mistakes(examples: Sequence[Example]) -> list[Example]:
    """The nearest misses first: a caption with one wrong word tells more than a broken one."""
    wrong = [
        (example, example.retrieved if example.generated is None else example.generated)
        for example in examples
        if (example.retrieved_right if example.generated is None else example.generated_right) is False
    ]
    wrong.sort(key=lambda pair: -_shared_words(pair[1], pair[0].caption))
    return [example for example, _ in wrong[:_MISTAKES]]


def _shared_words(a: str, b: str) -> float:
    a_words, b_words = set(a.casefold().split()), set(b.casefold().split())
    return len(a_words & b_words) / max(1, len(a_words | b_words))
