"""Near-duplicates of evaluation images among training images, by perceptual hashes and optionally by embeddings."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from coca_jax.data.images import decode, video
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError
from coca_jax.tools import common
from coca_jax.tools.dedup import hashing
from coca_jax.tools.dedup.hashing import Hashes
from coca_jax.tools.dedup.images import Collection

_ENTRIES = 8_192  # hashes compared at a time: with their differences they fit a core's cache
_ROWS = 65_536  # evaluation embeddings compared at a time

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Embedding:
    """An image encoder as a second way to compare.

    Attributes:
      embed: uint8 [n, size, size, 3] -> unit vectors, float32 [n, E].
      size: pixels a side of its images.
      threshold: the cosine from which two images are near-duplicates.
    """

    embed: Callable[[np.ndarray], np.ndarray]
    size: int
    threshold: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """A training record and the evaluation image nearest to it.

    Attributes:
      dataset, index, key, name: the training record.
      evaluation, evaluation_index, evaluation_name: the evaluation image.
      distance: bits in which their hashes differ; None if only the embeddings agree.
      similarity: cosine of their embeddings; None if not compared, or below the threshold.
    """

    dataset: str
    index: int
    key: str
    name: str
    evaluation: str
    evaluation_index: int
    evaluation_name: str
    distance: int | None
    similarity: float | None


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """The result of a search.

    Attributes:
      pairs: at most one for each training record.
      compared: number of training images by dataset.
      evaluation_images: number of evaluation images.
      plain: number of images of both kinds without structure, which were not compared.
      unreadable: images of both kinds by cause.
    """

    pairs: list[Pair]
    compared: dict[str, int]
    evaluation_images: int
    plain: int
    unreadable: Counter[str]


def find_duplicates(
    training: Sequence[Collection],
    evaluation: Sequence[Collection],
    *,
    distance: int,
    workers: int = 1,
    embedding: Embedding | None = None,
) -> Duplicates:
    """The training records that are near-duplicates of evaluation images.

    Args:
      training, evaluation: the images.
      distance: bits of 64 in which the hashes of near-duplicates may differ.
      workers: threads that read, hash and compare.
      embedding: compares the images, too.

    Raises:
      CocaError: no evaluation image can be read.
    """
    unreadable: Counter[str] = Counter()
    library = _Library(evaluation, distance, workers, embedding, unreadable)
    pairs, compared, plain = [], {}, library.plain
    for collection in training:
        compared[collection.name] = 0
        for block in _read(collection, library.nearest_hash, workers, embedding, unreadable):
            compared[collection.name] += len(block.indices)
            plain += sum(hashes.plain for hashes, _ in block.results)
            similar = library.nearest_embedding(block.vectors)
            for row, (index, (_, near)) in enumerate(zip(block.indices, block.results, strict=True)):
                alike = similar.get(row)
                match = near or alike
                if match:
                    place = library.places[match[0]]
                    pairs.append(_pair(collection, index, place, near and near[1], alike and round(alike[1], 4)))
    return Duplicates(pairs, compared, len(library.places), plain, unreadable)


def _pair(
    collection: Collection,
    index: int,
    place: tuple[Collection, int],
    distance: int | None,
    similarity: float | None,
) -> Pair:
    evaluation, number = place
    key, name = collection.images.key(index), collection.images.name(index)
    evaluation_name = evaluation.images.name(number)
    return Pair(collection.name, index, key, name, evaluation.name, number, evaluation_name, distance, similarity)


class _Library:
    """The evaluation images, to be searched.

    Attributes:
      places: collection and index of each image.
      plain: how many images have no structure.
    """

    def __init__(
        self,
        collections: Sequence[Collection],
        distance: int,
        workers: int,
        embedding: Embedding | None,
        unreadable: Counter[str],
    ):
        self._distance, self._embedding = distance, embedding
        self.places: list[tuple[Collection, int]] = []
        hashes: list[Hashes] = []
        vectors = []
        for collection in collections:
            for block in _read(collection, hashing.evaluation_hashes, workers, embedding, unreadable):
                self.places += [(collection, index) for index in block.indices]
                hashes += block.results
                vectors.append(block.vectors)
        if not hashes:
            raise CocaError("none of the evaluation images can be read: check the datasets that are compared")
        self.plain = sum(one.plain for one in hashes)
        used = [(image, one) for image, one in enumerate(hashes) if not one.plain]
        self._owners = np.array([image for image, one in used for _ in one.bits], np.int64)
        self._bits = np.concatenate([np.zeros(0, np.uint64), *(one.bits for _, one in used)])
        self._colors = np.concatenate([hashes[0].colors[:0], *(one.colors for _, one in used)])
        self._vectors = np.concatenate(vectors)

    def nearest_hash(self, image: Image.Image) -> tuple[Hashes, tuple[int, int] | None]:
        """The image's hashes; and the nearest image here with the distance in bits, None if there is none."""
        hashes = hashing.training_hashes(image)
        if hashes.plain:
            return hashes, None
        queries, entries, distances = within_distance(self._bits, hashes.bits, self._distance)
        same = hashing.same_colors(hashes.colors[queries], self._colors[entries])
        candidates = zip(distances[same].tolist(), queries[same].tolist(), entries[same].tolist(), strict=True)
        distance, _, entry = min(candidates, default=(0, 0, -1))
        return hashes, None if entry < 0 else (int(self._owners[entry]), distance)

    def nearest_embedding(self, vectors: np.ndarray) -> dict[int, tuple[int, float]]:
        """For each of the vectors [n, E] that reaches the threshold: the nearest image here, and the cosine."""
        if not self._embedding:
            return {}
        nearest, cosines = np.zeros(len(vectors), np.int64), np.full(len(vectors), -np.inf)
        for start in range(0, len(self._vectors), _ROWS):
            similar = vectors @ self._vectors[start : start + _ROWS].T
            best = similar.argmax(axis=1)
            top = similar[np.arange(len(best)), best]
            nearest, cosines = np.where(top > cosines, best + start, nearest), np.maximum(cosines, top)
        rows = np.flatnonzero(cosines >= self._embedding.threshold).tolist()
        return {row: (int(nearest[row]), float(cosines[row])) for row in rows}


def within_distance(
    entries: np.ndarray, queries: np.ndarray, distance: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in at most `distance` bits, by comparing each query with each entry.

    Args:
      entries, queries: uint64 [m] and [q].

    Returns:
      Numbers of queries, numbers of entries, and distances, int64 [pairs] each.
    """
    parts = [np.zeros((3, 0), np.int64)]
    for start in range(0, len(entries), _ENTRIES):
        distances = np.bitwise_count(queries[:, None] ^ entries[None, start : start + _ENTRIES])
        near = np.nonzero(distances <= distance)
        if len(near[0]):
            parts.append(np.stack([near[0], near[1] + start, distances[near].astype(np.int64)]))
    rows, columns, values = np.concatenate(parts, axis=1)
    return rows, columns, values


@dataclasses.dataclass(frozen=True)
class _Block(Generic[T]):
    indices: list[int]  # of the n images that can be read
    results: list[T]
    vectors: np.ndarray  # float32 [n, E]; [n, 0] without an embedding


def _read(
    collection: Collection,
    measure: Callable[[Image.Image], T],
    workers: int,
    embedding: Embedding | None,
    unreadable: Counter[str],
) -> Iterator[_Block[T]]:
    """The results of `measure` for all images, a block at a time; counts the unreadable ones by cause."""

    def read_block(indices: list[int]) -> tuple[list[int], list[T], list[np.ndarray], list[str]]:
        readable, results, views, causes = [], [], [], []
        for index, record in zip(indices, collection.images.read(indices), strict=True):
            try:
                if isinstance(record, BadRecord):
                    raise record
                image = still(record.image)
                if embedding:
                    views.append(decode.resize_and_crop(image, embedding.size))
            except BadRecord as error:
                causes.append(error.cause)
            else:
                readable.append(index)
                results.append(measure(image))
        return readable, results, views, causes

    blocks = common.in_blocks(read_block, range(len(collection.images)), workers, collection.name, "image")
    for readable, results, views, causes in blocks:
        unreadable.update(causes)
        if readable:
            vectors = embedding.embed(np.stack(views)) if embedding else np.zeros((len(readable), 0), np.float32)
            yield _Block(readable, results, vectors)


def still(data: bytes) -> Image.Image:
    """The image, or a clip's middle frame: RGB, at least 128 pixels a side if it is not smaller itself.

    Raises:
      BadRecord: it cannot be read.
    """
    if video.is_clip(data):
        return Image.fromarray(video.decode_clip(data, 2 * hashing.SIDE, 1)[0])
    return decode.decode(data, smallest=2 * hashing.SIDE)
