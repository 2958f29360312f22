"""The tokens of a frozen image encoder: computed before the step, and kept for later epochs if the config says so.

The encoder is a compiled program of one batch shape, so that a record's tokens are the same numbers whether they were
computed for this batch or for an earlier one.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from coca_jax.errors import CocaError
from coca_jax.trainer.train_step import TrainStep, encoder_parameters

Record = tuple[int, int]  # the number of a source, and the record's index there
_MEMORY_SHARE = 0.5  # of a host's memory that the kept tokens may take


class Features:
    """Makes the inputs of the step from batches, by `TrainStep.compile_encoder`.

    With `train.cache_features` each process keeps the tokens of all records in its memory. Processes call this together.
    """

    def __init__(self, step: TrainStep):
        self._step, self._encode = step, step.compile_encoder()
        self._kept: dict[Record, np.ndarray] | None = {} if step.config.train.cache_features else None

    def known(self, source: int, index: int) -> bool:
        """Whether the tokens of a record are kept, so that its image need not be decoded."""
        return self._kept is not None and (source, index) in self._kept

    def __call__(
        self, params: Any, local: Mapping[str, np.ndarray], batch: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """The batch with `tokens` for its `image`.

        Args:
          params: of the whole model.
          local: this process's rows of the batch, with the `record` of each, int32 [b, 2]: its source's number and its index.
          batch: the arrays of the objective on the devices.
        """
        images = batch.pop("image")
        if self._kept is None:
            return batch | {"tokens": self._encode(encoder_parameters(params), images)}
        wanted = self._step.inputs["tokens"]
        # Every process keeps the tokens of all records, since in the next epoch it gets other rows, and so all agree
        # whether the encoder runs.
        records = _of_all_processes(wanted.sharding, local["record"], wanted.shape[0])
        if not all(record in self._kept for record in records):
            tokens = _fetched(self._encode(encoder_parameters(params), images))
            for record, of_record in zip(records, tokens, strict=True):
                # Not those of known records, whose images were not decoded: a batch at an epoch's end has some.
                self._kept.setdefault(record, of_record)
        kept = np.stack([self._kept[record] for record in map(tuple, local["record"].tolist())])
        return batch | {"tokens": jax.make_array_from_process_local_data(wanted.sharding, kept, wanted.shape)}


def check_memory(step: TrainStep, records: int) -> None:
    """Raises CocaError if the tokens of so many records are to be kept and exceed half of this machine's memory."""
    if not step.config.train.cache_features:
        return
    tokens = step.inputs["tokens"]
    needed = records * tokens.dtype.itemsize * math.prod(tokens.shape[1:])
    if needed > _MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise CocaError(
            f"the tokens of {records:,} records take {needed / 1e9:.3g} GB, more than half of this machine's memory: set "
            "train.cache_features = False"
        )


def _of_all_processes(sharding: Any, records: np.ndarray, rows: int) -> list[Record]:
    """The records of the whole batch, from those of each process' rows [b, 2]."""
    array = jax.make_array_from_process_local_data(sharding, records, (rows, 2)) if jax.process_count() > 1 else records
    return list(map(tuple, _fetched(array).tolist()))


def _fetched(array: Any) -> np.ndarray:
    """The whole of an array that is spread over the devices of all processes."""
    return multihost_utils.process_allgather(array, tiled=True) if jax.process_count() > 1 else np.asarray(array)
