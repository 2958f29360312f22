"""An index of images, searched with texts and images: `coca.index(images)`, `index.search("a red three")`."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import chex
import numpy as np

from coca_jax.embedding_index import files
from coca_jax.embedding_index.arguments import as_list, is_one_image, whole_number
from coca_jax.embedding_index.files import Entry, Rows
from coca_jax.embedding_index.nearest import nearest
from coca_jax.errors import CocaError

_BATCH = 1_024  # images taken from an iterable at a time
_MOST_PARTS = 8  # that a search reads one by one


class Model(Protocol):
    """The part of `coca_jax.inference.model.Coca` that an index uses."""

    step: int

    @property
    def digest(self) -> str: ...

    def embed_images(self, images: Any) -> np.ndarray: ...

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Hit:
    """The name of an image in a search's results, and its cosine similarity to the query."""

    name: str
    score: float


class Index:
    """Embeddings of images, searched exactly with the model that made them.

    Args:
      entries: the images, in the order of the embeddings.
      parts: the embeddings, arrays [n, E] with one row an entry in all.
      folder: the folder that the entries' names are relative to, "" if they are not files of a folder.
    """

    def __init__(self, model: Model, entries: Sequence[Entry], parts: Sequence[np.ndarray | Rows], folder: str = ""):
        self.entries, self.folder = list(entries), folder
        self.model, self._parts = model, list(parts)

    @classmethod
    def load(cls, model: Model, place: str | os.PathLike) -> "Index":
        """The index in a folder, memory-mapped; raises CocaError if it is missing, damaged, or another model's."""
        stored = files.read(place)
        if stored.digest != model.digest:
            steps = f"another checkpoint (step {stored.step:,}) than this one (step {model.step:,})"
            remedy = "load that one, or remove the folder and index the images again"
            raise CocaError(f"the index in {place} was made by {steps}: {remedy}")
        return cls(model, stored.entries, [stored.embeddings], stored.folder)

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, images: Iterable[Any], names: Iterable[str] | None = None) -> None:
        """Appends images, in any form that `Coca.embed_images` takes; an iterable is processed in parts.

        Names are by default a path's text, and for other images their position in the index. Raises CocaError, and adds
        nothing, if an image cannot be read, or the numbers of names and images differ.
        """
        given = None if names is None else [str(name) for name in as_list(names, "names", "name")]
        parts: list[np.ndarray] = []
        entries: list[Entry] = []
        for batch in _batches(images):
            parts.append(self.model.embed_images(batch))
            for image in batch if isinstance(batch, list) else [None] * len(parts[-1]):
                place = str(len(self) + len(entries))
                entries.append(Entry(os.fspath(image) if isinstance(image, (str, os.PathLike)) else place))
            if given is not None and len(given) < len(entries):
                break  # the images may have no end
        if given is not None and len(given) != len(entries):
            raise CocaError(f"there are {len(given)} names, and not as many images: give one for each image")
        self.append(entries if given is None else [Entry(name) for name in given], parts)

    def append(self, entries: Sequence[Entry], parts: Sequence[np.ndarray]) -> None:
        """Adds images with their embeddings, [n, E] in parts; raises CocaError if one is not finite."""
        parts = list(parts) or [self.model.embed_images([])]
        chex.assert_rank(parts, 2)
        if not all(np.isfinite(part).all() for part in parts):
            raise CocaError("the model gives embeddings that are not finite: its training has failed, use another step")
        self.entries += entries
        self._parts += parts

    def keep(self, rows: np.ndarray) -> None:
        """Removes all rows but these, ascending; reads nothing of the parts on a disk."""
        parts: list[np.ndarray | Rows] = []
        start = 0
        for part in self._parts:
            own = rows[(rows >= start) & (rows < start + len(part))] - start
            if len(own) == len(part):
                parts.append(part)
            else:
                parts.append(part[own] if type(part) is np.ndarray else Rows(part, own))
            start += len(part)
        self.entries, self._parts = [self.entries[row] for row in rows], parts

    def search(self, query: Any, k: int = 10) -> list:
        """The k most similar images as `Hit`s, the best first; of equal ones the earlier comes first.

        A query is a text or an image (an array, a PIL image, a `pathlib.Path`); for an iterable of these, a list for each.
        Raises CocaError if a text exceeds the model's positions, or an image cannot be read (the error names it).
        """
        k = whole_number(k, "k", 1)
        one = isinstance(query, str) or is_one_image(query)
        queries = [query] if one else as_list(query, "the query", "text or image")
        if len(self._parts) > _MOST_PARTS:  # many small additions
            self._parts[1:] = [np.concatenate([np.asarray(part[:]) for part in self._parts[1:]])]
        indices, scores = nearest(self._embed(queries), self._parts, k)
        results = [
            [Hit(self.entries[index].name, float(score)) for index, score in zip(*rows, strict=True)]
            for rows in zip(indices, scores, strict=True)
        ]
        return results[0] if one else results

    def save(self, place: str | os.PathLike, dtype: str = "float32") -> None:
        """Writes the index into a folder on a disk, or replaces the index there. Of several processes one must call it.

        The `dtype` "float16" takes half of the space. It rounds each embedding (to 11 bits: a score changes by less than
        0.0005), and then is searched exactly: scores are those of the rounded embeddings, in float32. Raises CocaError
        if the folder cannot be written to.
        """
        digest, step = self.model.digest, self.model.step
        files.write(place, self._parts, self.entries, digest=digest, step=step, folder=self.folder, dtype=dtype)

    @property
    def dtype(self) -> str:
        """The type of the embeddings that were loaded or added first."""
        return self._parts[0].dtype.name

    def _embed(self, queries: Sequence[Any]) -> np.ndarray:
        """Embeddings of texts and images, float32 [Q, E]."""
        is_text = np.array([isinstance(query, str) for query in queries], bool)
        texts = self.model.embed_texts([str(query) for query in queries if isinstance(query, str)])
        vectors = np.zeros((len(queries), texts.shape[1]), np.float32)
        vectors[is_text] = texts
        if not is_text.all():
            vectors[~is_text] = self.model.embed_images([query for query in queries if not isinstance(query, str)])
        return vectors


def _batches(images: Any) -> Iterator[Any]:
    """Lists of at most _BATCH images; an array that may be one image, or the tokens of many, unchanged."""
    if is_one_image(images):
        yield images if hasattr(images, "shape") else [images]
        return
    lazy = isinstance(images, Iterable) and not isinstance(images, (set, frozenset))
    rest = iter(images if lazy else as_list(images, "images", "image"))
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch
