"""What a data set offers to its evaluations: held-out examples, and what counts as right on them."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Classification:
    """A zero-shot classification over some of the set's images.

    Attributes:
      name: "digit", "color": the metric is `<set>/zero_shot_<name>`.
      labels: the classes' names, put into the templates.
      templates: prompts with one `{}` each; their embeddings are averaged per class (CLIP's ensemble).
      indices: which images of the set take part, [M].
      targets: the right class of each of them, [M].
    """

    name: str
    labels: Sequence[str]
    templates: Sequence[str]
    indices: np.ndarray
    targets: np.ndarray


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Held-out pairs.

    Attributes:
      name: the prefix of the metrics' keys.
      images: uint8 [M, H, W, 3], at the model's resolution, without augmentation.
      captions: for each image, its true captions (at least one); the first is the one shown beside the picture.
      meaning: a caption's canonical form, None for a text that has none (not of the set's language).
        Two texts say the same where their canonical forms are equal; it decides right answers in retrieval and captioning.
      classifications: zero-shot classifications of these images.
      sentences: a few texts whose top retrieved images the report shows.
    """

    name: str
    images: np.ndarray
    captions: Sequence[Sequence[str]]
    meaning: Callable[[str], Hashable | None]
    classifications: Sequence[Classification] = ()
    sentences: Sequence[str] = ()
