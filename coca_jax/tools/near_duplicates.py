"""Training pictures that evaluation sets show too: by perceptual hashes, and if wanted by a model's embeddings."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from coca_jax.config import DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.images import decode as images
from coca_jax.data.records.record import BadRecord, RecordStore
from coca_jax.errors import CocaError
from coca_jax.tools import picture_hashes, sets
from coca_jax.tools.hamming import HammingIndex
from coca_jax.tools.picture_hashes import Hashes

_ROWS = 65_536  # evaluation embeddings compared at a time

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 [n, size, size, 3] -> unit vectors float32 [n, E]


@dataclasses.dataclass(frozen=True)
class Held:
    """An evaluation set: where its pictures come from."""

    name: str
    source: DatasetConfig
    store: RecordStore


@dataclasses.dataclass(frozen=True)
class Pair:
    """A training record and the evaluation picture nearest to it.

    Attributes:
      set, index, key, name: the training record.
      held, held_index, held_name: the evaluation picture.
      distance: bits in which their hashes differ; None: only the embeddings agree.
      similarity: cosine of their embeddings; None: not asked for, or below the threshold.
    """

    set: str
    index: int
    key: str
    name: str
    held: str
    held_index: int
    held_name: str
    distance: int | None
    similarity: float | None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
      pairs: at most one for each training record.
      compared: training pictures by set; held: evaluation pictures; plain: those of both without any structure.
      unreadable: of both, by cause.
    """

    pairs: list[Pair]
    compared: dict[str, int]
    held: int
    plain: int
    unreadable: dict[str, int]


class Library:
    """The pictures of the evaluation sets, to be found by nearness.

    Attributes:
      plain: how many of them have no structure; unreadable: further ones, by cause.
    """

    def __init__(self, held: Sequence[Held], distance: int, workers: int, embedding: "Embedding | None"):
        """Reads all of them."""
        self._held, self._embedding = held, embedding
        self.unreadable: dict[str, int] = {}
        parts, vectors, places = [], [], []
        for number, one in enumerate(held):
            for block in _read(one.source, one.store, f"evaluation: {one.name}", workers, embedding, self.unreadable):
                parts.append(picture_hashes.of_evaluation(block.pictures))
                vectors.append(block.vectors)
                places.append(np.stack([np.full(len(block.indices), number), block.indices], axis=1))
        if not parts or not sum(map(len, places)):
            raise CocaError("none of the evaluation pictures can be read: check the sets that are compared")
        hashes = Hashes.together(parts)
        self._places = np.concatenate(places)
        self._vectors = np.concatenate(vectors)
        self.plain, useful = int(hashes.plain.sum()), np.flatnonzero(~hashes.plain)
        self._owners = np.repeat(useful.astype(np.int32), hashes.bits.shape[1])
        self._colors = hashes.colors[useful].reshape(-1, *hashes.colors.shape[2:])
        self._index = HammingIndex(hashes.bits[useful].reshape(-1), distance)

    def __len__(self) -> int:
        return len(self._places)

    def place(self, number: int) -> tuple[Held, int]:
        held, index = self._places[number].tolist()
        return self._held[held], index

    def by_hash(self, hashes: Hashes) -> dict[int, tuple[int, int]]:
        """For each of the n pictures that has one: its nearest picture here, and the distance in bits."""
        variants = hashes.bits.shape[1]
        queries, entries, distances = self._index.near(hashes.bits.reshape(-1))
        rows = queries // variants
        agree = picture_hashes.same_colors(
            hashes.colors.reshape(-1, *hashes.colors.shape[2:])[queries], self._colors[entries]
        )
        best: dict[int, tuple[int, int]] = {}
        for at in np.flatnonzero(agree & ~hashes.plain[rows]):
            row, found = int(rows[at]), (int(self._owners[entries[at]]), int(distances[at]))
            if row not in best or found[1] < best[row][1]:
                best[row] = found
        return best

    def by_embedding(self, vectors: np.ndarray) -> dict[int, tuple[int, float]]:
        """For each of the vectors [n, E] that has one above the threshold: its nearest picture here, and the cosine."""
        nearest, cosines = np.zeros(len(vectors), np.int64), np.full(len(vectors), -np.inf)
        for start in range(0, len(self._vectors), _ROWS):
            similar = vectors @ self._vectors[start : start + _ROWS].T
            at = similar.argmax(axis=1)
            top = similar[np.arange(len(at)), at]
            nearest, cosines = np.where(top > cosines, at + start, nearest), np.maximum(cosines, top)
        return {int(i): (int(nearest[i]), float(cosines[i])) for i in np.flatnonzero(cosines >= self._embedding.least)}


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A checkpoint's image encoder as a second opinion.

    Attributes:
      embed: of pictures of `size` pixels a side; least: the cosine from which two pictures are the same.
    """

    embed: Embed
    size: int
    least: float


@dataclasses.dataclass(frozen=True)
class _Block:
    indices: np.ndarray  # [n]
    pictures: np.ndarray  # thumbnails, uint8 [n, 2, 64, 64, 3]
    vectors: np.ndarray  # float32 [n, E]; [n, 0] without an embedding


def find(
    train: dict[str, tuple[DatasetConfig, RecordStore]],
    held: Sequence[Held],
    *,
    distance: int,
    workers: int = 1,
    embedding: Embedding | None = None,
) -> Found:
    """The training records that are near-duplicates of evaluation pictures.

    Raises:
      CocaError: no evaluation picture can be read.
    """
    library = Library(held, distance, workers, embedding)
    pairs, compared, unreadable = [], {}, dict(library.unreadable)
    plain = library.plain
    for name, (source, store) in train.items():
        compared[name] = 0
        for block in _read(source, store, name, workers, embedding, unreadable):
            hashes = picture_hashes.of_training(block.pictures)
            compared[name] += len(block.indices)
            plain += int(hashes.plain.sum())
            near = library.by_hash(hashes)
            alike = library.by_embedding(block.vectors) if embedding else {}
            for row in sorted({*near, *alike}):
                pairs.append(_pair(name, store, int(block.indices[row]), library, near.get(row), alike.get(row)))
    return Found(pairs, compared, len(library), plain, unreadable)


def _pair(name: str, store: RecordStore, index: int, library: Library, near, alike) -> Pair:
    held, at = library.place((near or alike)[0])
    return Pair(
        name,
        index,
        store.key(index),
        store.name(index),
        held.name,
        at,
        held.store.name(at),
        near and near[1],
        alike and round(alike[1], 4),
    )


def _read(
    source: DatasetConfig,
    store: RecordStore,
    what: str,
    workers: int,
    embedding: Embedding | None,
    unreadable: dict[str, int],
) -> Iterator[_Block]:
    """All pictures of a store, a block at a time, one block for each worker in memory; counts the unreadable ones."""

    def block(indices: np.ndarray):
        kept, pictures, views_, causes = [], [], [], []
        for index, record in zip(indices.tolist(), store.read(indices.tolist()), strict=True):
            try:
                if isinstance(record, BadRecord):
                    raise record
                picture = still(record.image, source)
                view = embedding and images.resize_and_crop(picture, embedding.size)
            except BadRecord as error:
                causes.append(error.cause)
            else:
                kept.append(index)
                pictures.append(picture_hashes.thumbnails(picture))
                views_.append(view)
        return np.array(kept, np.int64), pictures, views_, causes, len(indices)

    with sets.progress(what, len(store), "picture") as advance:
        everything = sets.blocks(np.arange(len(store)))
        for kept, pictures, views_, causes, count in sets.in_threads(block, everything, workers):
            for cause in causes:
                unreadable[cause] = unreadable.get(cause, 0) + 1
            if len(kept):
                vectors = embedding.embed(np.stack(views_)) if embedding else np.zeros((len(kept), 0), np.float32)
                yield _Block(kept, np.stack(pictures), vectors)
            advance(count)


def still(data: bytes, source: DatasetConfig) -> Image.Image:
    """The picture, or a clip's middle frame, at least 64 pixels a side, RGB.

    Raises:
      BadRecord: it cannot be read.
    """
    try:
        return images.decode(data, smallest=2 * picture_hashes.SIDE)
    except BadRecord as error:
        if error.cause != "not an image":
            raise
    plain = dataclasses.replace(source, frames=0)
    return Image.fromarray(views.view(data, 2 * picture_hashes.SIDE, plain, None))
