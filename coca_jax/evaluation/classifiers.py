"""Zero-shot classifiers made of texts, each built once: kept in memory, and beside the results for another time."""

import hashlib
import io
import json
import logging
from collections.abc import Sequence

import numpy as np
from etils import epath

from coca_jax.distributed import processes as hosts
from coca_jax.evaluation.dataset import Classification
from coca_jax.evaluation.model import Model
from coca_jax.inference.zero_shot import text_classifier

_log = logging.getLogger(__name__)
_WORTH_KEEPING = 10_000  # prompts, which take longer to embed than a file to read


class Classifiers:
    """The classifiers of one model."""

    def __init__(self, coca: Model, folder: epath.Path | None = None):
        """`folder`: where large ones are kept, under names that no other model's have; None: nowhere."""
        self._coca, self._folder = coca, folder
        self._made: dict[str, np.ndarray] = {}

    @property
    def temperature(self) -> float:
        """The model's, which divides similarities before a softmax makes probabilities of them."""
        return self._coca.temperature

    def __call__(self, task: Classification, long_text: str = "error") -> np.ndarray:
        """float32 [C, E], L2-normalised: of all classes, be they candidates or not.

        Raises:
          CocaError: a prompt is too long, unless `long_text` is "truncate".
        """
        names = [list(own) for own in task.synonyms] or [[label] for label in task.labels]
        key = hashlib.sha256(json.dumps([names, list(task.templates), long_text]).encode()).hexdigest()[:16]
        if key not in self._made:
            if self._folder is None or len(names) * len(task.templates) < _WORTH_KEEPING:
                self._made[key] = self._build(names, task.templates, long_text)
            else:
                self._made[key] = self._kept(f"{self._coca.digest}-{key}.npy", names, task.templates, long_text)
        return self._made[key]

    def _kept(self, file: str, names: list[list[str]], templates: Sequence[str], long_text: str) -> np.ndarray:
        """The classifier of a file; one that is not there, or is no such thing, is made anew and written."""
        path = self._folder / "classifiers" / file
        data = hosts.from_first(lambda: _read(path))  # all take it, or all make it
        try:
            found = np.load(io.BytesIO(data), allow_pickle=False)
            if found.dtype == np.float32 and found.ndim == 2 and len(found) == len(names):
                return found
        except (ValueError, EOFError, OSError):
            pass
        found = self._build(names, templates, long_text)
        if hosts.is_first():
            buffer = io.BytesIO()
            np.save(buffer, found, allow_pickle=False)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(buffer.getvalue())
            except OSError as error:  # here alone: the other processes would wait for this one
                _log.warning("%s is not kept for another time: %s", path, error)
        return found

    def _build(self, names: list[list[str]], templates: Sequence[str], long_text: str) -> np.ndarray:
        if len(names) * len(templates) >= _WORTH_KEEPING:
            _log.info("embedding %d classes with %d prompts each", len(names), len(templates))

        def embed(texts):
            return self._coca.embed_texts(texts, long_text)

        each = [name for own in names for name in own]
        place = {name: i for i, name in enumerate(dict.fromkeys(each))}  # equal names get one vector, to the last digit
        vectors = text_classifier(embed, list(place), templates)[[place[name] for name in each]]
        if all(len(own) == 1 for own in names):
            return vectors
        starts = np.cumsum([0, *map(len, names)])[:-1]
        sums = np.add.reduceat(vectors, starts, axis=0)  # synonyms count alike
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _read(path: epath.Path) -> bytes:
    """The file's bytes; none where it is missing or cannot be read."""
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        _log.warning("%s cannot be read and is made anew: %s", path, error)
        return b""
