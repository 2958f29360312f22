"""A source's records by position: those of a block are read together and cached until they are due."""

import threading

from coca_jax.data.pipeline.order import Order
from coca_jax.data.records.record import BadRecord, Record, RecordStore


class Reader:
    """Reads records in the order of training, for several threads.

    Results do not depend on the cache: one that begins empty, or one that is full, only reads more often.
    """

    def __init__(self, store: RecordStore, order: Order, ahead_bytes: int):
        """Reads nothing yet; `ahead_bytes` of encoded images fit the cache; 0: each record is read alone, when it is due."""
        self._store, self._order, self._limit = store, order, ahead_bytes
        self._cache: dict[int, Record | BadRecord] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        # One a lane: the lane's next record waits for the block that is being read, instead of reading it again.
        self._lanes = [threading.Lock() for _ in range(order.lanes if ahead_bytes else 0)]
        self._used = [-1] * len(self._lanes)  # the last position of each lane; a thread may overtake another

    def record(self, position: int, index: int) -> Record | BadRecord:
        """The record at a position, `index` in the store."""
        if not self._lanes:
            return self._store.read([index])[0]
        lane = position % len(self._lanes)
        with self._lanes[lane]:
            self._used[lane] = max(self._used[lane], position)
            cached = self._take(position)
            return self._read_ahead(position, index, self._used[lane]) if cached is None else cached

    def _read_ahead(self, position: int, index: int, used: int) -> Record | BadRecord:
        positions = self._order.ahead(position)
        with self._lock:
            full = self._bytes >= self._limit
        if full or len(positions) == 1:
            return self._store.read([index])[0]
        indices = self._order.indices(positions).tolist()
        places = sorted(range(len(indices)), key=indices.__getitem__)  # neighbours in the store's order
        records = dict(zip(places, self._store.read([indices[place] for place in places]), strict=True))
        with self._lock:
            for place, due in enumerate(positions.tolist()):
                if due > used and due not in self._cache:
                    self._cache[due] = records[place]
                    self._bytes += _size(records[place])
        return records[0]

    def _take(self, position: int) -> Record | BadRecord | None:
        with self._lock:
            cached = self._cache.pop(position, None)
            self._bytes -= 0 if cached is None else _size(cached)
            return cached


def _size(record: Record | BadRecord) -> int:
    return 1_000 + (len(record.image) + len(record.second_image) if isinstance(record, Record) else 0)
