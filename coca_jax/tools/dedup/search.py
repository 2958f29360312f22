"""Near-duplicates of evaluation images among training images, by perceptual hashes and optionally by embeddings."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from coca_jax.data.images import decode, video
from coca_jax.data.records.record import BadRecord, Record, RecordStore
from coca_jax.errors import CocaError
from coca_jax.tools import common
from coca_jax.tools.dedup import hashing
from coca_jax.tools.dedup.hashing import Hashes

_ENTRIES = 16_384  # hashes compared at a time: with their differences they fit a core's cache
_PLAIN = "no structure to compare"

Collection = tuple[str, RecordStore]  # images under a name
T = TypeVar("T")


class Embedding(NamedTuple):
    """An image encoder as a second way to compare."""

    embed: Callable[[np.ndarray], np.ndarray]  # uint8 [n, size, size, 3] -> unit vectors, float32 [n, E]
    size: int
    threshold: float  # the cosine from which two images are near-duplicates


@dataclasses.dataclass(frozen=True)
class Pair:
    """A training record and the evaluation image nearest to it."""

    dataset: str
    index: int
    key: str
    name: str
    evaluation: str
    evaluation_index: int
    evaluation_name: str
    distance: int | None  # bits in which their hashes differ; None if only the embeddings agree
    similarity: float | None  # cosine of their embeddings; None if not compared, or below the threshold


class Duplicates(NamedTuple):
    """The result of a search."""

    pairs: list[Pair]  # at most one for each training record
    training: Counter[str]  # readable images, by dataset
    evaluation: int  # readable images
    skipped: Counter[str]  # images of both kinds that hashes were not compared of, by cause


def find_duplicates(
    training: Sequence[Collection],
    evaluation: Sequence[Collection],
    *,
    distance: int,
    workers: int = 1,
    embedding: Embedding | None = None,
) -> Duplicates:
    """The training records that are near-duplicates of evaluation images.

    Their hashes differ in at most `distance` bits of 64, or the embedding finds them. `workers` threads read, hash and
    compare. Raises CocaError if no evaluation image can be read.
    """
    skipped: Counter[str] = Counter()
    library = _Library(evaluation, distance, workers, embedding, skipped)
    pairs, counts = [], Counter({name: 0 for name, _ in training})
    for collection in training:
        name, images = collection
        for indices, results, vectors in _read(collection, library.nearest_hash, workers, embedding, skipped):
            counts[name] += len(indices)
            similar = library.nearest_embedding(vectors)
            for row, (index, (hashes, near)) in enumerate(zip(indices, results, strict=True)):
                skipped[_PLAIN] += not len(hashes.bits)
                alike = similar.get(row)
                found = near or alike
                if found:
                    record = (name, index, images.key(index), images.name(index))
                    cosine = alike and round(alike[1], 4)
                    pairs.append(Pair(*record, *library.place(found[0]), near and near[1], cosine))
    return Duplicates(pairs, counts, len(library), +skipped)


class _Library:
    """The evaluation images, to be searched."""

    def __init__(
        self,
        collections: Sequence[Collection],
        distance: int,
        workers: int,
        embedding: Embedding | None,
        skipped: Counter[str],
    ):
        self._distance, self._embedding = distance, embedding
        self._places: list[tuple[Collection, int]] = []
        hashes: list[Hashes] = []
        parts = []
        for collection in collections:
            for indices, results, vectors in _read(collection, hashing.evaluation_hashes, workers, embedding, skipped):
                self._places += [(collection, index) for index in indices]
                hashes += results
                parts.append(vectors)
        if not hashes:
            raise CocaError("none of the evaluation images can be read: check the datasets that are compared")
        counts = [len(one.bits) for one in hashes]
        skipped[_PLAIN] += counts.count(0)
        self._vectors = np.concatenate(parts)
        self._owners = np.repeat(np.arange(len(hashes)), counts)
        self._bits, self._colors = (np.concatenate(arrays) for arrays in zip(*hashes, strict=True))

    def __len__(self) -> int:
        return len(self._places)

    def place(self, number: int) -> tuple[str, int, str]:
        """Collection, index and name of an image."""
        (name, images), index = self._places[number]
        return name, index, images.name(index)

    def nearest_hash(self, image: Image.Image) -> tuple[Hashes, tuple[int, int] | None]:
        """The image's hashes; and the nearest image here with the distance in bits, None if there is none."""
        hashes = hashing.training_hashes(image)
        queries, entries, distances = within_distance(self._bits, hashes.bits, self._distance)
        same = hashing.same_colors(hashes.colors[queries], self._colors[entries])
        if not same.any():
            return hashes, None
        best = np.lexsort((entries[same], queries[same], distances[same]))[0]
        return hashes, (int(self._owners[entries[same][best]]), int(distances[same][best]))

    def nearest_embedding(self, vectors: np.ndarray) -> dict[int, tuple[int, float]]:
        """For each of the vectors [n, E] that reaches the threshold: the nearest image here, and the cosine."""
        if not self._embedding:
            return {}
        similar = vectors @ self._vectors.T
        nearest, cosines = similar.argmax(axis=1), similar.max(axis=1)
        rows = np.flatnonzero(cosines >= self._embedding.threshold).tolist()
        return {row: (int(nearest[row]), float(cosines[row])) for row in rows}


def within_distance(
    entries: np.ndarray, queries: np.ndarray, distance: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of hashes (uint64 [m] and [q]) that differ in at most `distance` bits.

    Returns:
      Numbers of queries, numbers of entries, and distances, int64 [pairs] each.
    """
    parts = [np.zeros((3, 0), np.int64)]
    for start in range(0, len(entries), _ENTRIES):
        distances = np.bitwise_count(queries[:, None] ^ entries[start : start + _ENTRIES])
        if distances.min(initial=65) <= distance:  # rare, and quicker to find out than which
            rows, columns = np.nonzero(distances <= distance)
            parts.append(np.stack([rows, columns + start, distances[rows, columns].astype(np.int64)]))
    rows, columns, values = np.concatenate(parts, axis=1)
    return rows, columns, values


def _read(
    collection: Collection,
    measure: Callable[[Image.Image], T],
    workers: int,
    embedding: Embedding | None,
    skipped: Counter[str],
) -> Iterator[tuple[list[int], list[T], np.ndarray]]:
    """Indices, results of `measure` and embeddings (float32 [n, E] or [n, 0]) of all images, a block at a time."""
    name, store = collection

    def read_block(indices: list[int]) -> tuple[list[int], list[T], list[np.ndarray], list[str]]:
        readable, results, views, causes = [], [], [], []
        for index, record in zip(indices, store.read(indices), strict=True):
            try:
                image = still(record)
            except BadRecord as error:
                causes.append(error.cause)
                continue
            readable.append(index)
            results.append(measure(image))
            if embedding:
                views.append(decode.resize_and_crop(image, embedding.size))
        return readable, results, views, causes

    for readable, results, views, causes in common.in_blocks(read_block, range(len(store)), workers, name, "image"):
        skipped.update(causes)
        if readable:
            yield readable, results, embedding.embed(np.stack(views)) if embedding else np.zeros((len(readable), 0))


def still(record: Record | BadRecord) -> Image.Image:
    """The image, or a clip's middle frame, in RGB, or BadRecord; a large JPEG may come out smaller, at least 128 a side."""
    if isinstance(record, BadRecord):
        raise record
    if video.is_clip(record.image):
        return Image.fromarray(video.decode_clip(record.image, 2 * hashing.SIDE, 1)[0])
    return decode.decode(record.image, smallest=2 * hashing.SIDE)
