"""Batches as a function of the step: the data's whole state is the step, so resuming costs nothing."""

import hashlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from coca_jax.config import Config
from coca_jax.data import records, tasks
from coca_jax.data.examples import Skipped
from coca_jax.data.quiet_tensorflow import tf
from coca_jax.data.vocabulary import Vocabulary, check_against_model, too_long
from coca_jax.errors import DataError

_PREFETCH = 2  # batches made ahead of the one in use


class Pipeline:
    """The batches of `config.data`, or those of their rows that one host of several makes.

    Attributes:
      fingerprint: hex digits that change where the same step would give another batch; the number of hosts and the
        folder's place do not matter.
    """

    def __init__(
        self, config: Config, vocabulary: Vocabulary, *, split: str = "train", rows: Sequence[int] | None = None
    ):
        """Opens the records; reads none.

        Args:
          config: the run's.
          vocabulary: must fit the model's.
          split: "train": shuffled and augmented. "evaluation": held-out records in their order, plain.
          rows: which rows of each batch are made, b of them; by default all.

        Raises:
          CocaError: the records cannot be found, or the vocabulary does not fit.
        """
        check_against_model(vocabulary, config.model.text)
        batch_size = config.train.batch_size
        self._config, self._split = config, split
        self._rows = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
        self._task = tasks.register(config, vocabulary)
        self._source = self._task.source
        self._examples = self._source.examples(split)
        self.fingerprint = records.digest(
            self._examples.fingerprint, split, str(config.train.seed), str(batch_size), str(config.model.image.size),
            str(config.model.text.length), hashlib.sha256(vocabulary.model_bytes).hexdigest(),
        )

    @property
    def skipped(self) -> Skipped:
        """Records that could not be used so far, by cause, with names."""
        return self._examples.skipped()

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step (from 0): "image" uint8 [b, size, size, 3] and "text" int32 [b, length].

        Raises:
          DataError: too many bad records, or a text longer than the model reads under data.long_text = error.
        """
        return next(_Batches(self._dataset(step, step + 1), self._checked))

    def iterate(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The batches from `start_step` on, without end, made in the background.

        Raises:
          DataError: as `batch`, when the batch in question is due.
        """
        return _Batches(self._dataset(start_step, np.iinfo(np.int64).max).prefetch(_PREFETCH), self._checked)

    def _dataset(self, start: int, stop: int) -> tf.data.Dataset:
        length = self._config.model.text.length
        base = tf.constant(self._rows, tf.int64)
        blocks = tf.data.Dataset.range(start, stop).map(lambda step: step * self._config.train.batch_size + base)
        seed = self._config.train.seed if self._split == records.SPLITS[0] else None
        # Decoding releases the interpreter's lock, so more cores help; two cores are JAX's.
        parallel = max(1, min(16, (os.cpu_count() or 1) // 4))
        dataset = self._source.at(blocks, self._split, seed, parallel)
        dataset = self._task.preprocess_precache(dataset)
        dataset = self._task.preprocess_postcache(dataset, sequence_length={"text": length})
        dataset = dataset.batch(len(self._rows), drop_remainder=True)
        options = tf.data.Options()
        options.threading.private_threadpool_size = parallel + 1
        options.threading.max_intra_op_parallelism = 1
        options.autotune.enabled = False
        return dataset.with_options(options)

    def _checked(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if batch["failed"].any():
            raise self._source.failure
        length = self._config.model.text.length
        long = np.flatnonzero(batch["tokens"] > length)
        if self._config.data.long_text == "error" and len(long):
            raise DataError(too_long(batch["caption"][long[0]].decode(), int(batch["tokens"][long[0]]), length))
        return {"image": batch["image"], "text": batch["text"]}


class _Batches(Iterator):
    """The batches of a dataset.

    tensorflow's threads call into Python: where one still does while the interpreter goes down, both wait for each
    other for ever. So the iterator is let go at exit, before that, at the latest.
    """

    def __init__(self, dataset: tf.data.Dataset, check: Callable[[dict], dict]):
        self._check = check
        self._held = [dataset.as_numpy_iterator()]
        weakref.finalize(self, self._held.clear)

    def __next__(self) -> dict[str, np.ndarray]:
        return self._check(next(self._held[0]))
