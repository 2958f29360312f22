"""Batches as a function of the step: the data's whole state is the step, so that resuming costs nothing.

A batch is divided into small groups of rows; threads read, decode and tokenise group after group (decoders release the
interpreter meanwhile), and write each row to its place in the batch's arrays. Some batches are prepared while one is
used; the order in which threads reach them changes no byte.
"""

import collections
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from coca_jax.config import Config
from coca_jax.data.images.inputs import input_dtype, input_shape
from coca_jax.data.pipeline.examples import Example, Skipped, none_known, open_examples
from coca_jax.data.pipeline.mixture import layout
from coca_jax.data.records.open import SPLITS
from coca_jax.data.text.answers import normalized, soft_targets
from coca_jax.data.text.vocabulary import Vocabulary, check_against_model
from coca_jax.errors import CocaError, DataError
from coca_jax.storage.files import digest

_PREFETCH = 2  # batches prepared besides the one in use
_GROUP = 16  # rows that a thread makes at a time, at most
_THREADS = max(1, min(32, (os.cpu_count() or 1) // 2))  # the other cores are JAX's
# Of encoded images read before they are due, over all sources: an eighth of a small machine's memory.
_AHEAD_BYTES = min(4 * 2**30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)
_TRUE = ("entailment", "true")  # classes whose texts their images entail (SNLI-VE, NLVR2)
Batch = dict[str, np.ndarray]
# Waits for a batch, and for the examples that its rows are made of.
_Pending = Callable[[], tuple[Batch, list[Example]]]


Known = Callable[[int, int], bool]  # of a source's number and a record's index there: whether its features are kept


class Origin(NamedTuple):
    """The record behind a row of a batch."""

    row: int  # of the whole batch
    source: str
    position: int  # in the source's order
    record: str  # the path at which a person finds the one that was used
    text: str  # before it was cut to the model's length


class Pipeline:
    """The batches of `config.data`, or those of their rows that one host of several makes.

    Attributes:
      fingerprint: hex digits that change if the same step gives another batch; independent of the number of hosts and
        of where the data lies.
      layout: the source of each row of a batch.
      summaries: of each source, a line for the log on the records that train, are held out and are left out.
    """

    def __init__(
        self,
        config: Config,
        vocabulary: Vocabulary,
        *,
        split: str = "train",
        rows: Sequence[int] | None = None,
        classes: Sequence[str] = (),
    ):
        """Opens the records; reads none.

        Args:
          config, vocabulary: of the run.
          split: "train": shuffled and augmented. "evaluation": held-out records in their order, without augmentation.
          rows: the rows of each batch to make, b of them; by default all.
          classes: of a run with a head, `text.classes.run_classes`.

        Raises:
          CocaError: the records cannot be found, or the vocabulary does not fit.
        """
        check_against_model(vocabulary, config.model.text)
        self._config, self._vocabulary = config, vocabulary
        sources, batch_size = config.data.sources, config.train.batch_size
        self.layout = layout({name: source.share for name, source in sources.items()}, batch_size)
        self._rows = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
        seed = config.train.seed if split == SPLITS[0] else None
        quotas = list(zip(self.layout.names, self.layout.quotas, strict=True))
        self._sources = [open_examples(config, name, split, quota, seed, classes) for name, quota in quotas]
        self._answers, self._classes = {normalized(name): number for number, name in enumerate(classes)}, len(classes)
        statements = config.objective.statements
        self._true = next((n for n, name in enumerate(classes) if name.casefold() in _TRUE), -1)
        if statements.generative_weight and self._true < 0:
            shown = ", ".join(classes)
            raise CocaError(
                f"objective.statements.generative_weight needs a class 'entailment' or 'true', but there are {shown}: "
                "set it to 0"
            )
        self.summaries = {name: one.summary for name, one in self._named()}
        self._shape = input_shape(config.model, config.images_per_example)
        numbers = (config.train.seed, batch_size, self._shape, config.model.text.length)
        parts = [split, *map(str, numbers), hashlib.sha256(vocabulary.model_bytes).hexdigest()]
        if config.objective.has_head:
            parts += [config.objective.name, *classes]
        for (name, quota), one in zip(quotas, self._sources, strict=True):
            parts += [name, str(quota), one.fingerprint]
        self.fingerprint = digest(*parts)

    @property
    def record_count(self) -> int:
        """The stored records of all sources together, those that cannot be used among them."""
        return sum(one.count or 0 for one in self._sources)

    @property
    def skipped_by_source(self) -> dict[str, Skipped]:
        """The records of each source that could not be used so far."""
        return {name: one.skipped() for name, one in self._named()}

    def metrics(self, step: int) -> dict[str, float]:
        """Of each source NAME: `data/NAME/pairs` of a batch; after a number of steps `data/NAME/epoch`, passes over its
        records, and `data/NAME/skipped`, distinct records that this host could not use."""
        figures: dict[str, float] = {}
        for (name, one), quota in zip(self._named(), self.layout.quotas, strict=True):
            figures[f"data/{name}/pairs"] = quota
            if one.count is not None:
                figures[f"data/{name}/epoch"] = step * quota / one.count
                figures[f"data/{name}/skipped"] = len(one.bad)
        return figures

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0).

        It has "image", uint8 [b, size, size, 3] (with frames [b, frames, size, size, 3]; of stored tokens float32
        [b, tokens, width]; of pairs [b, 2, size, size, 3]); "text", int32 [b, length], but for
        classification; "source", int32 [b], each row's place in `layout.names`; and "record", int32 [b, 2], this and the
        record's index there. With a head also "label", int32 [b], and for entailment and pairs "entailed", bool [b]; or for
        vqa "question", int32 [b], and "targets", float32 [b, classes]: see `objectives/vqa.py`.

        Raises:
          DataError: too many bad records, or a text longer than the model reads under data.long_text = error.
        """
        return self._made(step)[0]

    def traced(self, step: int) -> tuple[Batch, list[Origin]]:
        """The batch of a step, and the records behind its rows; errors as `batch`."""
        batch, examples = self._made(step)
        return batch, [
            Origin(row, self.layout.names[number], one.position, self._sources[number].name(one.index), one.text)
            for row, number, one in zip(self._rows.tolist(), batch["source"].tolist(), examples, strict=True)
        ]

    def iterate(
        self, start_step: int = 0, prefetch: int = _PREFETCH, known: Known = none_known
    ) -> Generator[Batch, None, None]:
        """The batches from `start_step` on, without end; the next ones are prepared until this is closed or collected.

        Args:
          prefetch: number of batches prepared in the background besides the one in use; 0: each is made when it is due.
          known: of a source's number and a record's index there: whether the image need not be decoded.

        Raises:
          DataError: as `batch`, when the batch in question is due.
        """
        shares = np.bincount(self.layout.source[self._rows], minlength=len(self._sources)) / len(self._rows)
        readers = [one.reader(int(_AHEAD_BYTES * share)) for one, share in zip(self._sources, shares, strict=True)]
        pool = ThreadPoolExecutor(_THREADS, "batches")
        pending: collections.deque[_Pending] = collections.deque()
        try:
            for step in itertools.count(start_step):
                pending.append(self._start(step, readers, pool, known))
                if len(pending) > prefetch:
                    yield pending.popleft()()[0]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _named(self) -> Iterator[tuple[str, Any]]:
        return zip(self.layout.names, self._sources, strict=True)

    def _made(self, step: int) -> tuple[Batch, list[Example]]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return self._start(step, [one.reader(0) for one in self._sources], pool)()

    def _start(
        self,
        step: int,
        readers: list,
        pool: ThreadPoolExecutor,
        known: Known = none_known,
    ) -> _Pending:
        """Has the threads of the pool make the batch of a step; the result waits for it, and raises what a thread raised."""
        source, positions, indices = self._places(step)
        image = np.empty((len(source), *self._shape), input_dtype(self._config.model))
        arrays = self._text_arrays(len(source))
        examples: list[Any] = [None] * len(source)

        def make(rows: range) -> None:
            some = slice(rows.start, rows.stop)
            numbers = source[some].tolist()
            places = zip(numbers, positions[some].tolist(), indices[some].tolist(), strict=True)
            # All records first, then all images: between two decodings the interpreter would find its caches cold.
            read = [self._sources[number].read(*at, readers[number]) for number, *at in places]
            for row, number, example in zip(rows, numbers, read, strict=True):
                own = functools.partial(known, number)
                examples[row] = self._sources[number].decode(example, image[row], own)
            for name, values in self._texts(examples[some]).items():
                arrays[name][some] = values

        count = max(1, min(_GROUP, -(-len(source) // (2 * _THREADS))))
        groups = [range(first, min(first + count, len(source))) for first in range(0, len(source), count)]
        parts = [pool.submit(make, group) for group in groups]

        def wait() -> tuple[Batch, list[Example]]:
            for part in parts:
                part.result()
            record = np.stack([source, np.array([example.index for example in examples], np.int64)], axis=1)
            named = {"image": image, "source": source.copy(), "record": record.astype(np.int32)}
            return named | arrays, examples

        return wait

    def _text_arrays(self, rows: int) -> Batch:
        """Arrays for all that `_texts` gives."""
        objective = self._config.objective
        if objective.name == "classification":
            return {"label": np.empty(rows, np.int32)}
        arrays: Batch = {"text": np.empty((rows, self._config.model.text.length), np.int32)}
        if objective.name == "vqa":
            targets = np.empty((rows, self._classes), np.float32)
            return arrays | {"question": np.empty(rows, np.int32), "targets": targets}
        if objective.reads_statement:
            arrays["entailed"] = np.empty(rows, bool)
        return arrays | ({"label": np.empty(rows, np.int32)} if objective.has_head else {})

    def _texts(self, examples: Sequence[Example]) -> Batch:
        """The texts of some examples as the model reads them, with their labels or answers."""
        objective = self._config.objective
        labels = {"label": np.array([one.label for one in examples], np.int32)} if objective.has_head else {}
        if objective.name == "classification":  # whose model reads no text, of whatever length
            return labels
        texts, length = [example.text for example in examples], self._config.model.text.length
        try:
            if objective.name == "vqa":
                answers = [example.answer for example in examples]
                ids, asked = self._vocabulary.encode_answered(texts, answers, length, self._config.data.long_text)
                return {"text": ids, "question": asked, "targets": self._targets(examples)}
            ids = self._vocabulary.encode(texts, length, self._config.data.long_text)
        except CocaError as error:
            raise DataError(str(error)) from error
        entailed = {"entailed": labels["label"] == self._true} if objective.reads_statement else {}
        return {"text": ids, **labels, **entailed}

    def _targets(self, examples: Sequence[Example]) -> np.ndarray:
        """The scores of the run's answers for each question, float32 [n, C]; an answer that is none of them has no place."""
        targets = np.zeros((len(examples), self._classes), np.float32)
        for row, example in zip(targets, examples, strict=True):
            for answer, score in soft_targets(example.answers).items():
                if answer in self._answers:
                    row[self._answers[answer]] = score
        return targets

    def _places(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, position and index of the record of each of this host's rows, [b] each."""
        source, place = self.layout.source[self._rows], self.layout.place[self._rows]
        positions = step * np.array(self.layout.quotas, np.int64)[source] + place
        indices = np.empty_like(positions)
        for number, one in enumerate(self._sources):
            rows = source == number
            indices[rows] = one.indices(positions[rows])
        return source, positions, indices
