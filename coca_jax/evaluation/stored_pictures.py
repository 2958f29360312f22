"""The pictures of some records of a store, read and decoded when asked for: a set need not fit into memory."""

import concurrent.futures
import logging
import os
from collections.abc import Iterator, Sequence

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.images import augment as views
from coca_jax.data.records.record import BadRecord, Record, RecordStore

_log = logging.getLogger(__name__)
_KEPT_BYTES = 256 * 1024 * 1024  # of decoded pictures, so that a second question about the same rows reads nothing


class StoredPictures:
    """See `evaluation_set.Pictures`.

    Attributes:
      shape, dtype: of the array that all pictures would make.
      unreadable: why, for each row that turned out to be so in this process.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, store: RecordStore, indices: np.ndarray, size: int, source: DatasetConfig):
        """The records `indices` of `store`, as the views of evaluation that `source` asks for, `size` pixels a side."""
        frames = (source.frames,) if source.frames else ()
        self.shape = (len(indices), *frames, size, size, 3)
        self.unreadable: dict[int, str] = {}
        self._store, self._indices, self._size, self._source = store, indices, size, source
        self._kept: dict[int, np.ndarray] = {}
        self._keep = max(1, _KEPT_BYTES // max(1, int(np.prod(self.shape[1:]))))

    @property
    def fit_in_memory(self) -> bool:
        """Whether all of them, once read, are kept."""
        return len(self) <= self._keep

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        found = {row: self._kept[row] for row in set(rows.tolist()) if row in self._kept}
        missing = sorted(set(rows.tolist()) - found.keys())
        for row, picture in zip(missing, self._read(missing), strict=True):
            found[row] = picture
        self._kept |= found
        for row in list(self._kept)[: max(0, len(self._kept) - self._keep)]:  # the oldest first
            del self._kept[row]
        if not len(rows):
            return np.zeros((0, *self.shape[1:]), np.uint8)
        return np.stack([found[row] for row in rows.tolist()])

    def forget(self) -> None:
        """Gives back the memory of what was read."""
        self._kept.clear()

    def _read(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        records = self._store.read([int(self._indices[row]) for row in rows])
        with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # Pillow needs no GIL
            for row, view in zip(rows, pool.map(self._view, records), strict=True):
                if isinstance(view, BadRecord):
                    self.unreadable[row] = view.cause
                    name = self._store.name(int(self._indices[row]))
                    _log.warning("held-out record %s left out: %s", name, view)
                    view = np.zeros(self.shape[1:], np.uint8)
                yield view

    def _view(self, record: Record | BadRecord) -> np.ndarray | BadRecord:
        if isinstance(record, BadRecord):
            return record
        try:
            return views.view(record.image, self._size, self._source, None)
        except BadRecord as error:
            return error
