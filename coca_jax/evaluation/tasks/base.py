"""The protocol of a task, its result, and parts of it that several tasks share."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np

from coca_jax.evaluation.dataset import EvaluationDataset, short_repr
from coca_jax.evaluation.metrics.ranking import NO_LABEL
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.pages.blocks import Block, Tile

Branch = Literal["contrastive", "captioning"]
_SHARES = (  # beginnings of metrics that are shares; those that end in _r1, _r5 and _r10 are, too
    "zero_shot_",
    "likelihood_",
    "caption_equivalent",
    "caption_exact",
    "caption_parsed",
    "mean_corruption_error",
)


@dataclasses.dataclass(frozen=True)
class ImageTexts:
    """A text that the model gave each of the M images, and whether it is right; shown below the images in the report.

    Attributes:
      label: "generated", "retrieved".
      texts: M of them.
      right: bool [M]; None: unknown.
    """

    label: str
    texts: Sequence[str]
    right: np.ndarray | None


@dataclasses.dataclass(frozen=True, repr=False)
class TaskResult:
    """The result of a task on a dataset.

    Attributes:
      metrics: by keys such as `image_to_text_r1`; shares as fractions.
      baselines: for some of the same keys, the value that a model reaches without a look at the image.
      tiles: the headline metrics for the report.
      blocks: further content of the report's section.
      notes: sentences on requests that could not be met.
      image_texts: see there; None: the task gives none.
      server_captions: a caption by image number, for COCO's and NoCaps' servers.
    """

    metrics: Mapping[str, float]
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tiles: Sequence[Tile] = ()
    blocks: Sequence[Block] = ()
    notes: Sequence[str] = ()
    image_texts: ImageTexts | None = None
    server_captions: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return short_repr(self)


@dataclasses.dataclass(frozen=True, repr=False)
class DatasetResult:
    """The results of all tasks on a dataset, or the means of a group of datasets.

    Attributes:
      name: of the dataset or group, the prefix of the keys below.
      metrics, baselines: of all tasks, by keys such as `<name>/image_to_text_r1`; and the numbers of images.
      blocks: the content of the report's section.
      notes: sentences on requests that could not be met.
      unreadable: records that could not be used, counted by cause.
      server_captions: a caption by image number, for COCO's and NoCaps' servers.
      failed: why there is nothing of all this; empty otherwise.
      is_group: whether these are the means of a group.
    """

    name: str
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    blocks: Sequence[Block] = ()
    notes: Sequence[str] = ()
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)
    server_captions: Mapping[int, str] = dataclasses.field(default_factory=dict)
    failed: str = ""
    is_group: bool = False

    def __repr__(self) -> str:
        return short_repr(self)


class Task(Protocol):
    """A task: `compute` is a pure function of the ground truth and of the predictions that `needs` names.

    Attributes:
      branch: the loss without which a model cannot do it.
    """

    branch: ClassVar[Branch]

    def needs(self, dataset: EvaluationDataset) -> Needs:
        """The predictions that `compute` will read."""
        ...

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        """The metrics, and what the report shows of them."""
        ...


@dataclasses.dataclass(frozen=True)
class CaptionPool:
    """The texts that images are retrieved from and by, and the labels that decide which are right.

    Attributes:
      texts: the T captions.
      text_labels: int64 [T], at least 0.
      image_labels: int64 [M, K], filled up with NO_LABEL; an image and a text are right for each other iff the text's
        label is among the image's.
    """

    texts: list[str]
    text_labels: np.ndarray
    image_labels: np.ndarray

    @classmethod
    def by_meaning(cls, dataset: EvaluationDataset, captions: Sequence[Sequence[str]]) -> "CaptionPool":
        """Every caption of every image, identical strings once; a text is right for all images of its meaning.

        A copy carries nothing further, and copies of a wrong caption would push the right one down several ranks.
        """
        ids: dict[Hashable, int] = {}
        labels: dict[str, int] = {}  # of each distinct text
        for text in (text for own in captions for text in own):
            if text not in labels:
                labels[text] = ids.setdefault(dataset.meaning(text), len(ids))
        rows = [sorted({labels[text] for text in own}) for own in captions]
        image_labels = np.full((len(rows), max(map(len, rows), default=0)), NO_LABEL, np.int64)
        for row, own in zip(image_labels, rows, strict=True):
            row[: len(own)] = own
        return cls(list(labels), np.fromiter(labels.values(), np.int64, len(labels)), image_labels)

    @classmethod
    def by_image(cls, captions: Sequence[Sequence[str]]) -> "CaptionPool":
        """Every caption a candidate of its own, right for its own image alone: the published protocols."""
        owners = [image for image, own in enumerate(captions) for _ in own]
        texts = [text for own in captions for text in own]
        return cls(texts, np.array(owners, np.int64), np.arange(len(captions))[:, None])


def caption_counts(dataset: EvaluationDataset, rows: Sequence[int] | np.ndarray) -> dict[str, float]:
    """How many distinct captions and meanings these images have."""
    texts = {text for row in rows for text in dataset.captions[row]}
    return {"distinct_captions": len(texts), "distinct_meanings": len({dataset.meaning(text) for text in texts})}


def metric_text(key: str, value: float) -> str:
    """A metric's value for people: shares in percent.

    >>> metric_text("coco/image_to_text_r1", 0.5), metric_text("coco/images", 5000)
    ('50.00 %', '5,000')
    """
    metric = key.rpartition("/")[2]
    if not math.isfinite(value):
        return "n/a"
    if metric.startswith(_SHARES) or metric.endswith(("_r1", "_r5", "_r10")):
        return f"{100 * value:.2f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if metric.endswith("_rank") else f"{value:.4f}"


def shown_images(dataset: EvaluationDataset, rows: Sequence[int] | np.ndarray) -> list[np.ndarray | None]:
    """Images of the dataset as the report shows them, uint8 [H, W, 3]: of a clip the middle frame, of tokens none."""
    rows = np.asarray(rows, np.int64)
    if len(dataset.images.shape) < 4:
        return [None] * len(rows)
    images = dataset.images[rows]
    return list(images[:, images.shape[1] // 2] if images.ndim == 5 else images)
