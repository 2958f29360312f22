"""What a data set offers to its evaluations: held-out examples, and what counts as right on them."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np

from coca_jax.config import EvaluationDatasetConfig


class Pictures(Protocol):
    """Pictures in an order, indexed as an array is and read when asked for; an array is one.

    Attributes:
      shape: [M, H, W, 3], or [M, frames, H, W, 3] for clips.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, …]; one that cannot be read is black, and `unreadable` names it from then on, if there."""


@dataclasses.dataclass(frozen=True)
class Classification:
    """A zero-shot classification over some of the set's images.

    Attributes:
      name: "digit", "color": the metric is `<set>/zero_shot_<name>`.
      labels: the classes' names, put into the templates.
      templates: prompts with one `{}` each; their embeddings are averaged per class (CLIP's ensemble).
      indices: which images of the set take part, [M].
      targets: the right class of each of them, [M]; or the right ones, [M, K], filled up with -1.
      synonyms: for each class several names, of which `labels` shows the first; empty where each has but one.
      candidates: the classes that can be answered, ascending; None: all.
      members: for each class the names of the several things that it comprises, whose probabilities are added up; empty:
        each class is one thing, by its label or its synonyms.
    """

    name: str
    labels: Sequence[str]
    templates: Sequence[str]
    indices: np.ndarray
    targets: np.ndarray
    synonyms: Sequence[Sequence[str]] = ()
    candidates: np.ndarray | None = None
    members: Sequence[Sequence[str]] = ()


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs.

    Attributes:
      name: the prefix of the metrics' keys.
      images: uint8 [M, H, W, 3], at the model's resolution, without augmentation; or what reads them.
      captions: for each image, its true captions (at least one); the first is the one shown beside the picture.
      meaning: a caption's canonical form, None for a text that has none (not of the set's language).
        Two texts say the same where their canonical forms are equal; it decides right answers in retrieval and captioning.
      classifications: zero-shot classifications of these images.
      sentences: a few texts whose top retrieved images the report shows.
      long_text: what happens to texts longer than the model reads: "error", or "truncate".
      asked: what to evaluate and how, of a set with a config of its own; None: all that the model can do, as plainly.
      image_ids: the images' numbers on COCO's and NoCaps' servers; empty: they have none.
      unreadable: records that were left out before, counted by cause; those found while reading are counted on top.
    """

    name: str
    images: np.ndarray | Pictures
    captions: Sequence[Sequence[str]]
    meaning: Callable[[str], Hashable | None]
    classifications: Sequence[Classification] = ()
    sentences: Sequence[str] = ()
    long_text: str = "error"
    asked: EvaluationDatasetConfig | None = None
    image_ids: Sequence[int] = ()
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class UnopenedSet:
    """A set of which no record was read yet: of many sets, one at a time need be open.

    Attributes:
      name, asked: as the set's own.
      open: reads what its records say; raises CocaError where they are not as the config has it.
    """

    name: str
    asked: EvaluationDatasetConfig
    open: Callable[[], EvaluationSet]
