"""Which texts say the same: the keys that retrieval and captioning compare."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np

Meaning = Callable[[str], Hashable | None]

NO_LABEL = -1  # fills the rows of a label table whose image has fewer meanings than the widest one


def canonical(text: str, meaning: Meaning) -> Hashable:
    """A key that two texts share exactly where they say the same.

    It is `meaning(text)`; a text that has none (free text) is its own meaning, up to case and spacing.
    """
    found = meaning(text)
    # Tagged, so that a meaning that happens to be a string never equals a free text.
    return ("text", " ".join(text.casefold().split())) if found is None else ("meaning", found)


@dataclasses.dataclass(frozen=True)
class Pool:
    """The texts that a set's images are retrieved from and by, and the labels that decide right answers.

    Attributes:
      texts: the T distinct captions, in order of first appearance.
      text_labels: int64 [T], the id of each text's meaning.
      image_labels: int64 [M, K], the ids of the meanings of each image's captions, filled up with NO_LABEL.
      ids: the id of each canonical form.
    """

    texts: list[str]
    text_labels: np.ndarray
    image_labels: np.ndarray
    ids: dict[Hashable, int]


def pool_of(captions: Sequence[Sequence[str]], meaning: Meaning) -> Pool:
    """Every caption of every image, identical strings once.

    A copy carries nothing further, and copies of a wrong caption would push the right one down several ranks.

    Args:
      captions: for each of M images its true captions, at least one.
      meaning: see `EvaluationSet.meaning`.
    """
    ids: dict[Hashable, int] = {}
    labels: dict[str, int] = {}  # of each distinct text
    for text in (text for own in captions for text in own):
        if text not in labels:
            labels[text] = ids.setdefault(canonical(text, meaning), len(ids))
    rows = [sorted({labels[text] for text in own}) for own in captions]
    image_labels = np.full((len(rows), max(map(len, rows), default=0)), NO_LABEL, np.int64)
    for row, own in zip(image_labels, rows, strict=True):
        row[: len(own)] = own
    return Pool(list(labels), np.fromiter(labels.values(), np.int64, len(labels)), image_labels, ids)
