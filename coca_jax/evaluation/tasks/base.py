"""The protocol of a task, its result, and parts of it that several tasks share."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from coca_jax.data.images.video import positions
from coca_jax.evaluation.dataset import EvaluationDataset
from coca_jax.evaluation.predict import Needs, Predictions
from coca_jax.pages.blocks import Block, Heading, Table, Tile
from coca_jax.pages.charts import percent

_SHARE = re.compile(
    r"(zero_shot_|few_shot_|likelihood_|accuracy|vqa_|caption_(equivalent|exact|parsed)|mean_corruption_error).*|.*_r(1|5|10)"
)


@dataclasses.dataclass(frozen=True)
class ImageTexts:
    """A text that the model gave each of the M images, and whether it is right; shown below the images in the report."""

    label: str  # "generated", "retrieved", "predicted"
    texts: Sequence[str]
    right: np.ndarray | None  # bool [M]; None: unknown
    truths: Sequence[str] = ()  # the right texts of each image in one; empty: its first caption
    probabilities: np.ndarray | None = None  # float32 [M], of the texts; None: unknown
    known: np.ndarray | None = None  # bool [M], of which images `right` tells; None: of all

    def is_right(self, place: int) -> bool | None:
        """Whether an image's text is right; None: unknown."""
        if self.right is None or (self.known is not None and not self.known[place]):
            return None
        return bool(self.right[place])


@dataclasses.dataclass(frozen=True, repr=False)
class TaskResult:
    """The result of a task on a dataset.

    Metrics have keys such as `image_to_text_r1`, and are fractions where they are shares. Baselines are, for some of the
    same keys, the value that a model reaches without a look at the image.
    """

    metrics: Mapping[str, float]
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tiles: Sequence[Tile] = ()  # the headline metrics of the report's section
    blocks: Sequence[Block] = ()  # its further content
    notes: Sequence[str] = ()  # sentences on requests that could not be met
    # For evaluation servers: a text by the number of its image ("captions": COCO, NoCaps) or question ("answers": VQA).
    submissions: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    image_texts: Sequence[ImageTexts] = ()  # the one to read first stands first


@dataclasses.dataclass(frozen=True, repr=False)
class DatasetResult:
    """The results of all tasks on a dataset, or the means of a group of datasets; keys begin with the name and a /."""

    name: str
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    blocks: Sequence[Block] = ()
    notes: Sequence[str] = ()
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)  # records that were left out, by cause
    submissions: Mapping[str, Mapping[int, str]] = dataclasses.field(default_factory=dict)
    failed: str = ""  # why there is nothing of all this
    is_group: bool = False


class Task(Protocol):
    """A task, computed from the ground truth and the predictions that it needs, and from nothing else.

    Attributes:
      branch: the part without which a model cannot do it, "contrastive", "captioning", or "head".
    """

    branch: ClassVar[str]

    def needs(self, dataset: EvaluationDataset) -> Needs:
        """The predictions that `compute` will read."""
        ...

    def compute(self, dataset: EvaluationDataset, predictions: Predictions) -> TaskResult:
        """The metrics, and what the report shows of them."""
        ...


def caption_counts(dataset: EvaluationDataset, rows: Sequence[int] | np.ndarray) -> dict[str, float]:
    """How many distinct captions and meanings these images have."""
    texts = {text for row in rows for text in dataset.captions[row]}
    return {"distinct_captions": len(texts), "distinct_meanings": len({dataset.meaning(text) for text in texts})}


def metric_text(key: str, value: float) -> str:
    """A metric's value for people: shares in percent."""
    metric = key.rpartition("/")[2]
    if not math.isfinite(value):
        return "n/a"
    if _SHARE.fullmatch(metric):
        return f"{100 * value:.2f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if metric.endswith("_rank") else f"{value:.4f}"


def by_kind(scores: Mapping[str, np.ndarray], kinds: Sequence[str] | np.ndarray) -> dict[str, float]:
    """Metrics that are means of scores [M]: of all examples, and `<metric>_<kind>` of those of each kind but ""."""
    means = {metric: float(values.mean()) for metric, values in scores.items()}
    for kind in sorted(set(kinds) - {""}):
        own = np.asarray(kinds) == kind
        means |= {_kind_key(metric, kind): float(values[own].mean()) for metric, values in scores.items()}
    return means


def kinds_table(
    columns: Mapping[str, tuple[str, Mapping[str, float]]], kinds: Sequence[str] | np.ndarray
) -> list[Block]:
    """A table of metrics as `by_kind` gives them, a row for each kind; empty if there are no kinds.

    Args:
      columns: a metric's name and the values, by the column's name.
      kinds: of the M examples.
    """
    counts = Counter(kind for kind in kinds if kind)
    rows = [
        (
            kind.replace("_", " "),
            *(percent(values[_kind_key(metric, kind)]) for metric, values in columns.values()),
            f"{counts[kind]:,}",
        )
        for kind in sorted(counts)
    ]
    return [Heading("By kind"), Table(("", *columns, "Examples"), rows, "Metrics by kind")] if rows else []


def _kind_key(metric: str, kind: str) -> str:
    return f"{metric}_" + "".join(c if c.isalnum() else "_" for c in kind)


def shown_images(dataset: EvaluationDataset, rows: Sequence[int] | np.ndarray, most: int = 1) -> list[list[np.ndarray]]:
    """Images of each example as the report shows them, uint8 [H, W, 3]; none of tokens.

    Of clips and pairs at most so many, the middles of equal parts, in order.
    """
    rows = np.asarray(rows, np.int64)
    if len(dataset.images.shape) < 4:
        return [[] for _ in rows]
    images = dataset.images[rows]
    if dataset.config.dataset.evaluation_views > 1:  # the middle square of the first frames
        images = images[:, dataset.config.dataset.evaluation_crops // 2]
    if images.ndim == 4:
        return [[image] for image in images]
    return list(map(list, images[:, positions(images.shape[1], min(most, images.shape[1]), None)]))
