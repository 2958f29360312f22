"""An index of pictures: `coca.index(images)`, `index.search("a red three")`."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from coca_jax.embedding_index import files
from coca_jax.embedding_index.files import Entry
from coca_jax.embedding_index.nearest import nearest
from coca_jax.errors import CocaError

_AT_ONCE = 1_024  # pictures taken from an iterable at a time
_MOST_PARTS = 8  # that a search goes through one by one


class Model(Protocol):
    """What an index needs of `coca_jax.inference.model.Coca`."""

    digest: str  # of its parameters and vocabulary
    step: int

    def embed_images(self, images: Any) -> np.ndarray:
        """N images -> float32 [N, E], L2-normalised."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> float32 [N, E], L2-normalised."""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A picture that was found, and its cosine similarity to the query."""

    name: str
    score: float


class Index:
    """Pictures' embeddings, searched exactly with the model that made them.

    Attributes:
      model: the one that made the embeddings.
      entries: the pictures, in the order of the embeddings.
      pictures: the folder that their names are of, "" where there is none.
    """

    def __init__(self, model: Model, entries: Sequence[Entry], parts: Sequence[np.ndarray], pictures: str = ""):
        """Takes embeddings as they are: arrays [n, E], one row an entry in all."""
        self.entries, self.pictures = list(entries), pictures
        self.model, self._parts = model, list(parts)

    @classmethod
    def of(cls, model: Model, images: Iterable[Any], names: Iterable[str] | None = None) -> "Index":
        """An index of these images: see `add`."""
        index = cls(model, [], [])
        index.add(images, names)
        return index

    @classmethod
    def load(cls, model: Model, folder: str | os.PathLike) -> "Index":
        """The index in a folder, its embeddings memory-mapped.

        Raises:
          CocaError: there is none, it is damaged, or another model made it.
        """
        stored = files.read(folder)
        if stored.digest != model.digest:
            raise CocaError(
                f"the index in {folder} was made by another checkpoint (step {stored.step:,}) than this one (step "
                f"{model.step:,}): load that one, or remove the folder and index the pictures again"
            )
        return cls(model, stored.entries, [stored.embeddings], stored.pictures)

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, images: Iterable[Any], names: Iterable[str] | None = None) -> None:
        """Adds pictures behind those that are there.

        Args:
          images: as `Coca.embed_images` takes them, or any iterable of such pictures, which is worked through in parts.
          names: one for each; by default a path's text, and for other pictures their place in the index.

        Raises:
          CocaError: a picture cannot be read (it is named), or there are more or fewer names than pictures. Nothing is
            added then.
        """
        if isinstance(images, (str, os.PathLike)):
            raise CocaError("images are given as a list: put the one picture into a list")
        added, entries, names = [], [], None if names is None else iter(names)
        for batch in _batches(images):
            added.append(self.model.embed_images(batch))
            count, place = len(added[-1]), len(self) + len(entries)
            own = list(itertools.islice(_names(batch, count, place) if names is None else names, count))
            if len(own) < count:
                raise CocaError(f"there are only {len(entries) + len(own)} names: give one for each picture")
            entries += [Entry(str(name)) for name in own]
        if names is not None and next(names, None) is not None:
            raise CocaError(f"there are more names than the {len(entries)} pictures: give one for each picture")
        self.append(entries, added or [self.model.embed_images([])])

    def append(self, entries: Sequence[Entry], parts: Sequence[np.ndarray]) -> None:
        """Adds pictures that are embedded already, [n, E] in parts.

        Raises:
          CocaError: an embedding is not a number.
        """
        if not all(np.isfinite(part).all() for part in parts):
            raise CocaError("the model gives embeddings that are no numbers: its training has failed, use another step")
        self.entries += entries
        self._parts += parts

    def keep(self, rows: np.ndarray) -> None:
        """Leaves only these rows, ascending; of what lies on a disk nothing is read."""
        kept, start = [], 0
        for part in self._parts:
            own = rows[(rows >= start) & (rows < start + len(part))] - start
            if len(own) == len(part):
                kept.append(part)
            else:
                kept.append(part[own] if type(part) is np.ndarray else files.Kept(part, own))
            start += len(part)
        self.entries, self._parts = [self.entries[row] for row in rows], kept

    def search(self, query: Any, k: int = 10) -> list:
        """The k most similar pictures, the best first; of equal ones the earlier comes first.

        Args:
          query: a text, a picture (an array, a PIL image, a `pathlib.Path`), or a list of such.
          k: how many to find.

        Returns:
          `Hit`s; for a list a list of them for each query.

        Raises:
          CocaError: a text is too long, or a picture cannot be read (they are named).
        """
        if k < 1:
            raise CocaError(f"a search for {k} pictures finds none: ask for at least one")
        several = isinstance(query, (list, tuple))
        queries = list(query) if several else [query]
        if len(self._parts) > _MOST_PARTS:  # many small additions
            self._parts[1:] = [np.concatenate(self._parts[1:])]
        indices, scores = nearest(self._embedded(queries), self._parts, k)
        found = [
            [Hit(self.entries[index].name, float(score)) for index, score in zip(*rows, strict=True)]
            for rows in zip(indices, scores, strict=True)
        ]
        return found if several else found[0]

    def save(self, folder: str | os.PathLike, dtype: str = "float32") -> None:
        """Writes the index into a folder, in the place of the one that may be there. Of several processes one must.

        Args:
          folder: on a disk.
          dtype: "float16" takes half of the space. It rounds each embedding (to 11 bits: a score changes by less than
            0.0005), and then is searched exactly: scores are those of the rounded embeddings, in float32.

        Raises:
          CocaError: the folder cannot be written to.
        """
        model = self.model
        files.write(
            folder, self._parts, self.entries, digest=model.digest, step=model.step, pictures=self.pictures, dtype=dtype
        )

    @property
    def dtype(self) -> str:
        """That of the embeddings that were loaded or came first."""
        return self._parts[0].dtype.name

    def _embedded(self, queries: Sequence[Any]) -> np.ndarray:
        """float32 [Q, E]"""
        is_text = np.array([isinstance(query, str) for query in queries], bool)
        texts = self.model.embed_texts([query for query in queries if isinstance(query, str)])
        vectors = np.zeros((len(queries), texts.shape[1]), np.float32)
        vectors[is_text] = texts
        if not is_text.all():
            vectors[~is_text] = self.model.embed_images([query for query in queries if not isinstance(query, str)])
        return vectors


def _batches(images: Iterable[Any]) -> Iterator[Any]:
    if isinstance(images, np.ndarray) and images.ndim == 3:
        yield images  # one picture, or many as image tokens: the model knows
        return
    rest = iter(images)
    while batch := list(itertools.islice(rest, _AT_ONCE)):
        yield batch


def _names(batch: Any, count: int, place: int) -> Iterator[str]:
    """Paths, and for other pictures their places in the index."""
    for row in range(count):
        is_path = isinstance(batch, list) and isinstance(batch[row], (str, os.PathLike))
        yield os.fspath(batch[row]) if is_path else str(place + row)
