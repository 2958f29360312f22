"""The few pictures of a set that a report shows, with what the model says of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from coca_jax.evaluation.dataset import Pictures

_MISTAKES = 6


@dataclasses.dataclass(frozen=True)
class Example:
    """One held-out picture and what the model says of it; a part that the model cannot do is None.

    Attributes:
      image: uint8 [H, W, 3]; of a clip the middle frame.
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


class Gallery:
    """Makes examples of places among the pictures that could be read; only theirs are read again.

    Attributes:
      generated, generated_right, retrieved, retrieved_right: see `Example`, of each picture; None: there is none.
    """

    def __init__(self, images: np.ndarray | Pictures, rows: np.ndarray, captions: Sequence[Sequence[str]]):
        self._images, self._rows, self._captions = images, rows, captions
        self.generated: Sequence[str] | None = None
        self.generated_right: np.ndarray | None = None
        self.retrieved: Sequence[str] | None = None
        self.retrieved_right: np.ndarray | None = None

    def examples(self, places: Sequence[int] | np.ndarray) -> list[Example]:
        places = np.asarray(places, np.int64)
        pictures = self._images[self._rows[places]]
        if pictures.ndim == 5:
            pictures = pictures[:, pictures.shape[1] // 2]
        return [self._example(place, picture) for place, picture in zip(places.tolist(), pictures, strict=True)]

    def _example(self, place: int, picture: np.ndarray) -> Example:
        example = Example(picture, self._captions[place][0])
        if self.generated is not None:
            example = dataclasses.replace(
                example, generated=self.generated[place], generated_right=bool(self.generated_right[place])
            )
        if self.retrieved is not None:
            example = dataclasses.replace(
                example, retrieved=self.retrieved[place], retrieved_right=bool(self.retrieved_right[place])
            )
        return example

    def mistakes(self, besides: Sequence[int]) -> list[Example]:
        """The nearest misses first: a caption with one wrong word tells more than a broken one."""
        said, right = self.generated, self.generated_right
        if said is None:
            said, right = self.retrieved, self.retrieved_right
        if said is None:
            return []
        hidden = sorted(set(range(len(said))).difference(besides))
        wrong = [place for place in hidden if not right[place]]
        wrong.sort(key=lambda place: -_shared_words(said[place], self._captions[place][0]))
        return self.examples(wrong[:_MISTAKES])


def spread(size: int, count: int) -> list[int]:
    """At most `count` indices below `size`, evenly spaced: the same pictures in every report of one set."""
    return sorted({int(i) for i in np.linspace(0, size - 1, min(size, count))}) if size and count > 0 else []


def _shared_words(a: str, b: str) -> float:
    a_words, b_words = set(a.casefold().split()), set(b.casefold().split())
    return len(a_words & b_words) / max(1, len(a_words | b_words))
