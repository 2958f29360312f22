"""Every evaluation of one held-out set: the model answers once, then pure metrics, and pictures for a report."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from coca_jax.config import EvaluationDatasetConfig
from coca_jax.errors import CocaError
from coca_jax.evaluation import captioning, classification, retrieval
from coca_jax.evaluation.answers import Answers, ask
from coca_jax.evaluation.classification import ClassificationOutcome
from coca_jax.evaluation.classifiers import Classifiers
from coca_jax.evaluation.dataset import Classification, EvaluationSet
from coca_jax.evaluation.gallery import Example, Gallery, Search, spread
from coca_jax.evaluation.meaning import NO_LABEL, canonical, pool_of
from coca_jax.evaluation.metrics import ranking
from coca_jax.evaluation.model import Model

_log = logging.getLogger(__name__)
_SEARCH_RESULTS = 8
_PLAIN = ("retrieval", "classification", "captioning")  # what is asked where a set does not say


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
      unreadable: records that could not be used, counted by cause.
      notes: sentences on what was asked for and could not be done.
      captions: the generated captions by the images' numbers, where they have some.
      failed: why there is nothing of all this; empty where there is.
    """

    name: str
    metrics: dict[str, float]
    chance: dict[str, float]
    gallery: Sequence[Example] = ()
    mistakes: Sequence[Example] = ()
    searches: Sequence[Search] = ()
    classifications: Sequence[ClassificationOutcome] = ()
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    captions: Mapping[int, str] = dataclasses.field(default_factory=dict)
    failed: str = ""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What a model is asked of a set; `notes`: why not for more."""

    embeds: bool
    captions: bool
    scores: bool
    notes: tuple[str, ...]


def _plan(coca: Model, asked: EvaluationDatasetConfig | None, classifiable: bool) -> _Plan:
    tasks = _PLAIN if asked is None else asked.tasks
    notes = []

    def able(wanted: bool, can: bool, branch: str) -> bool:
        if wanted and not can and asked is not None:
            notes.append(f"the model was trained without its {branch} loss and cannot be asked for this")
        return wanted and can

    classes = "classification" in tasks and classifiable
    ranks = bool({"retrieval", "video_retrieval"}.intersection(tasks))
    return _Plan(
        embeds=able(ranks or classes, coca.can_embed, "contrastive"),
        captions=able("captioning" in tasks, coca.can_caption, "captioning"),
        scores=able("likelihood_classification" in tasks, coca.can_caption, "captioning"),
        notes=tuple(notes),
    )


def refusal(coca: Model, asked: EvaluationDatasetConfig | None, classifiable: bool = True) -> str:
    """Why the model can do nothing that is asked of it on a set; empty where it can do some of it."""
    plan = _plan(coca, asked, classifiable)
    if asked is None or plan.embeds or plan.captions or plan.scores:
        return ""
    return plan.notes[0] if plan.notes else "it has no picture of what is to be classified"


def evaluate(
    coca: Model, evaluation_set: EvaluationSet, gallery: int = 24, classifiers: Classifiers | None = None
) -> EvaluationResult:
    """What the set asks for, as far as the model can do it.

    Args:
      coca: the model; it batches by itself.
      evaluation_set: at least one held-out pair.
      gallery: how many pictures to keep for the report.
      classifiers: the model's, where another set may have built them already.

    Raises:
      CocaError: no picture can be read, or the set asks only for what the model cannot do.
    """
    run = _Evaluation(coca, evaluation_set, classifiers or Classifiers(coca))
    if run.embeds:
        run.retrieve()
        run.classify()
    if run.captions:
        run.caption()
    if run.scores:
        run.classify_by_likelihood()
    return run.result(gallery)


class _Evaluation:
    """One evaluation as it goes: metrics and examples are gathered."""

    def __init__(self, coca: Model, held_out: EvaluationSet, classifiers: Classifiers):
        self._coca, self._set, self._classifiers = coca, held_out, classifiers
        asked = held_out.asked
        self._tasks = _PLAIN if asked is None else asked.tasks
        classifiable = bool(held_out.classifications)
        plan, why = _plan(coca, asked, classifiable), refusal(coca, asked, classifiable)
        if why:
            raise CocaError(f"{held_out.name}: {why}")
        self.embeds, self.captions, self.scores = plan.embeds, plan.captions, plan.scores
        self._notes = list(plan.notes)
        self._ranks = bool({"retrieval", "video_retrieval"}.intersection(self._tasks))
        self._answers: Answers = ask(
            coca,
            held_out,
            embed=self.embeds,
            caption=self.captions,
            likelihoods=held_out.classifications if self.scores else (),
        )
        self._captions = [held_out.captions[row] for row in self._answers.rows]
        ranked = (
            asked.retrieval.captions_per_image or None if asked else None
        )  # of each; references for captions are all of them
        self._ranked = [own[:ranked] for own in self._captions]
        self._pool = pool_of(self._ranked, held_out.meaning)
        self._gallery = Gallery(held_out.images, self._answers.rows, self._captions)
        self._metrics: dict[str, float] = {"images": len(self._captions)}
        self._captioned = any(text for own in self._captions for text in own)  # or else nobody says what is right
        if asked is None or (self._captioned and (self._ranks or self.captions)):
            self._metrics |= {"distinct_captions": len(self._pool.texts), "distinct_meanings": len(self._pool.ids)}
        if self._answers.unreadable:
            self._metrics["unreadable"] = sum(self._answers.unreadable.values())
        self._chance: dict[str, float] = {}
        self._searches: list[Search] = []
        self._outcomes: list[ClassificationOutcome] = []
        self._by_id: dict[int, str] = {}

    def _embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._coca.embed_texts(texts, self._set.long_text)

    def retrieve(self) -> None:
        if not self._ranks:
            return
        images_ME, asked, pool = self._answers.embeddings_ME, self._set.asked, self._pool
        texts, labels, text_labels = pool.texts, pool.image_labels, pool.text_labels
        if asked is not None and asked.retrieval.match == "image":
            texts, labels, text_labels = retrieval.caption_pool(self._ranked)
        distinct = list(dict.fromkeys(texts))  # equal texts tie exactly, in whichever batch they would have been
        place = {text: i for i, text in enumerate(distinct)}
        texts_TE = self._embed_texts(distinct)[[place[text] for text in texts]]
        kind = "video" if "video_retrieval" in self._tasks else "image"
        found = retrieval.retrieval(images_ME, texts_TE, labels, text_labels, kind)
        # A run's own sets have the keys that they always had.
        kept = found.metrics if asked is not None else found.chance
        self._metrics |= {"texts": len(texts)} if asked is not None else {}
        self._metrics |= {key: found.metrics[key] for key in kept}
        self._chance |= found.chance
        best = ranking.top(images_ME, texts_TE, 1)[0][:, 0]
        right = (labels.reshape(len(labels), -1) == text_labels[best][:, None]).any(axis=1)
        self._gallery.retrieved, self._gallery.retrieved_right = [texts[i] for i in best], right

    def classify(self) -> None:
        if "classification" in self._tasks:
            for task in self._set.classifications:
                self._add(task, classification.by_embeddings(self._set, task, self._answers, self._classifiers))

    def classify_by_likelihood(self) -> None:
        for task in self._set.classifications:
            self._add(task, classification.by_likelihood(self._set, task, self._answers))

    def _add(self, task: Classification, found: classification.Found) -> None:
        outcome, metrics, chance = found
        if (note := classification.equal_names(task)) and note not in self._notes:
            self._notes.append(note)
        self._outcomes.append(outcome)
        self._metrics |= metrics
        self._chance |= chance

    def caption(self) -> None:
        generated, meaning = self._answers.generated, self._set.meaning
        if self._set.image_ids:
            ids = [self._set.image_ids[row] for row in self._answers.rows]
            self._by_id = dict(zip(ids, generated, strict=True))
        if not self._captioned:
            return
        self._metrics |= captioning.caption_metrics(generated, self._captions, meaning)
        self._chance["caption_equivalent"] = captioning.constant_answer(self._captions, meaning)
        self._gallery.generated = generated
        self._gallery.generated_right = captioning.equivalents(generated, self._captions, meaning)
        if self._set.asked is not None:
            wanted = self._set.asked.captioning.scores
            found, missing = captioning.reference_scores(generated, self._captions, wanted)
            self._metrics |= found
            self._notes += missing

    def _search(self) -> None:
        pool, images_ME = self._pool, self._answers.embeddings_ME
        found, _ = ranking.top(self._embed_texts(list(self._set.sentences)), images_ME, _SEARCH_RESULTS)
        for sentence, places in zip(self._set.sentences, found, strict=True):
            label = pool.ids.get(canonical(sentence, self._set.meaning), NO_LABEL)
            same = (pool.image_labels == label).any(axis=1) & (label != NO_LABEL)
            examples = self._gallery.examples(places)
            self._searches.append(Search(sentence, examples, same[places].tolist(), int(same.sum())))

    def result(self, gallery: int) -> EvaluationResult:
        name = self._set.name
        if self.embeds and self._set.sentences:
            self._search()
        shown = spread(len(self._captions), gallery)
        return EvaluationResult(
            name=name,
            metrics={f"{name}/{key}": value for key, value in self._metrics.items()},
            chance={f"{name}/{key}": value for key, value in self._chance.items()},
            gallery=self._gallery.examples(shown),
            mistakes=self._gallery.mistakes(besides=shown),
            searches=self._searches,
            classifications=self._outcomes,
            unreadable=dict(self._answers.unreadable),
            notes=self._notes,
            captions=self._by_id,
        )
