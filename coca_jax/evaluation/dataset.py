"""Evaluation datasets: held-out examples with their ground truth, whose images are read when they are needed."""

import concurrent.futures
import dataclasses
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from coca_jax.config import DatasetConfig, EvaluationDatasetConfig, ModelConfig
from coca_jax.data.images.augment import evaluation_views
from coca_jax.data.images.inputs import decode_input, input_dtype, input_shape
from coca_jax.data.records.record import BadRecord, Record, RecordStore

_log = logging.getLogger(__name__)
_KEPT_BYTES = 256 * 1024 * 1024  # of the images of a dataset that is evaluated many times


class Images(Protocol):
    """An array [M, H, W, 3], [M, frames, H, W, 3] of clips, with several views [M, views, …] of either, or
    [M, tokens, width]; or what reads its rows when indexed.

    An unreadable image is zeros, and from then on its row is in `unreadable`, if there.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, repr=False)
class Classification:
    """A classification of some of the dataset's images, zero-shot or by a head."""

    name: str  # "digit", "color": the metric is `<dataset>/zero_shot_<name>`, by a head `<dataset>/accuracy_<name>`
    labels: Sequence[str]  # the class names, put into the templates
    templates: Sequence[str]  # prompts with one `{}` each; their embeddings are averaged per class (CLIP's ensemble)
    indices: np.ndarray  # which images of the dataset take part, [M]
    targets: np.ndarray  # the right class of each of them, [M]; or the right ones, [M, K], filled up with -1
    synonyms: Sequence[Sequence[str]] = ()  # of each class, `labels` shows the first; empty if each has but one name
    candidates: np.ndarray | None = None  # the classes that can be answered, ascending; None: all
    # For each class the names of the several things that it comprises, whose probabilities are added up; empty: each
    # class is one thing, by its label or its synonyms.
    members: Sequence[Sequence[str]] = ()
    # The classes that a raw label of a record stands for.
    numbers: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def right_classes(self) -> np.ndarray:
        """The targets, in any case [M, K]."""
        return self.targets if self.targets.ndim == 2 else self.targets[:, None]

    @property
    def candidate_classes(self) -> np.ndarray:
        """The classes that can be answered, ascending: int [C]."""
        return np.arange(len(self.labels)) if self.candidates is None else self.candidates

    @property
    def candidate_texts(self) -> list[tuple[str, ...]]:
        """For each candidate its names, or those of its members."""
        several = self.members or self.synonyms
        return [tuple(several[i]) if several else (self.labels[i],) for i in self.candidate_classes]

    @property
    def prompted_names(self) -> list[tuple[str, ...]]:
        """The rows of the classification's text classifier: each class' names, or each distinct member of any class."""
        if self.members:
            return [(name,) for name in dict.fromkeys(name for own in self.candidate_texts for name in own)]
        return [tuple(own) for own in self.synonyms] or [(label,) for label in self.labels]


@dataclasses.dataclass(frozen=True, repr=False)
class TrainingImages:
    """N labelled training images, to which those of `EvaluationDataset` do not belong."""

    images: Images
    targets: Mapping[str, np.ndarray]  # by a classification's name: the class of each, int64 [N], or -1


@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationDataset:
    """Held-out examples with ground truth."""

    name: str  # the prefix of the metrics' keys
    config: EvaluationDatasetConfig
    images: Images  # [M, …] at the model's resolution, without augmentation
    captions: Sequence[Sequence[str]]  # of each image, the first is shown beside it; empty strings: there are none
    grammar: Callable[[str], Hashable | None] | None = None  # a caption's meaning, None if it has none; None: free text
    classifications: Sequence[Classification] = ()
    texts: Sequence[str] = ()  # that a head reads with each image: questions, hypotheses, statements; empty: none
    text_name: str = "text"  # of one of these texts: "question", "hypothesis", "statement"
    kinds: Sequence[str] = ()  # the type of each text, for metrics apart; empty: they have none
    answers: Sequence[Sequence[str]] = ()  # people's answers to each question; empty: it is for a server
    question_ids: Sequence[int] = ()  # the questions' numbers on VQA's server; empty: they have none
    queries: Sequence[str] = ()  # texts whose top retrieved images the report shows
    image_ids: Sequence[int] = ()  # the images' numbers on COCO's and NoCaps' servers; empty: they have none
    unreadable: Mapping[str, int] = dataclasses.field(default_factory=dict)  # records left out before, by cause
    training: TrainingImages | None = None  # for few-shot classification

    def meaning(self, text: str) -> Hashable:
        """A key that two texts share iff they are equivalent: the same parse, or free texts but for case and spaces."""
        parsed = self.grammar(text) if self.grammar else None
        # Tagged, so that a parse that happens to be a string never equals a free text.
        return ("text", " ".join(text.casefold().split())) if parsed is None else ("meaning", parsed)


@dataclasses.dataclass(frozen=True)
class PendingDataset:
    """An evaluation dataset of which no record was read yet: of many, one at a time need be open.

    `open` reads the texts of its records, and raises CocaError if they are not as the config has it.
    """

    name: str
    config: EvaluationDatasetConfig
    open: Callable[[], EvaluationDataset] = dataclasses.field(repr=False)


AnyDataset = EvaluationDataset | PendingDataset


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)).tolist()


class SelectedImages:
    """Some rows of images, as images of their own; each is read once, when it is first asked for, and kept."""

    def __init__(self, images: Images, rows: np.ndarray):
        self._images, self._rows = images, rows
        self._read: dict[int, np.ndarray] = {}
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        wanted = self._rows[rows].tolist()
        if missing := sorted(set(wanted) - self._read.keys()):
            self._read |= zip(missing, self._images[np.array(missing)], strict=True)
        return np.stack([self._read[row] for row in wanted])


class StoredImages:
    """The images of some records of a split, read and decoded as inputs of the model when they are asked for.

    Attributes:
      unreadable: the cause for each row that turned out to be unreadable in this process.
    """

    def __init__(
        self,
        store: RecordStore,
        indices: np.ndarray,
        model: ModelConfig,
        dataset: DatasetConfig,
        pairs: bool = False,
    ):
        several = (dataset.evaluation_views,) if dataset.evaluation_views > 1 else ()
        self.shape = (len(indices), *several, *input_shape(model, 2 if pairs else dataset.frames))
        self.dtype, self._pairs = input_dtype(model), pairs
        self.unreadable: dict[int, str] = {}
        self._store, self._indices, self._model, self._dataset = store, indices, model, dataset
        self._kept: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        if self._kept is not None:
            return self._kept[rows]
        return np.array(list(self._read(np.asarray(rows).tolist())), self.dtype).reshape(-1, *self.shape[1:])

    def preload(self) -> None:
        """Reads all images and keeps them, unless they are too large: for a dataset that is evaluated many times."""
        if np.prod(self.shape) * self.dtype.itemsize <= _KEPT_BYTES:
            self._kept = self[np.arange(len(self))]

    def _read(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        records = self._store.read([int(self._indices[row]) for row in rows])
        with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # Pillow needs no GIL
            for row, image in zip(rows, pool.map(self._decode, records), strict=True):
                if isinstance(image, BadRecord):
                    self.unreadable[row] = image.cause
                    name = self._store.name(int(self._indices[row]))
                    _log.warning("held-out record %s left out: %s", name, image)
                    image = np.zeros(self.shape[1:], self.dtype)
                yield image

    def _decode(self, record: Record | BadRecord) -> np.ndarray | BadRecord:
        if isinstance(record, BadRecord):
            return record
        try:
            if self._dataset.evaluation_views > 1:
                return evaluation_views(record.image, self._model.image.size, self._dataset)
            images = (record.image, record.second_image) if self._pairs else (record.image,)
            decoded = [decode_input(image, self._model, self._dataset) for image in images]
            return np.stack(decoded) if self._pairs else decoded[0]
        except BadRecord as error:
            return error
