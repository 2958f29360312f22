"""Zero-shot classifiers made of texts, each built once: kept in memory, and large ones in files beside the results."""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from coca_jax.distributed import processes as hosts
from coca_jax.evaluation.dataset import Classification
from coca_jax.inference.zero_shot import text_classifier

_log = logging.getLogger(__name__)
_WORTH_KEEPING = 10_000  # prompts, which take longer to embed than a file to read


class TextClassifiers:
    """The text classifiers of one model (CLIP, arXiv 2103.00020, §3.1.4)."""

    def __init__(self, coca: Any, folder: epath.Path | None = None):
        """Takes the model and the folder for large classifiers, under names that no other model's have; None: no files."""
        self._coca, self._folder = coca, folder
        self._made: dict[str, np.ndarray] = {}

    def __call__(self, task: Classification, long_text: str = "error") -> np.ndarray:
        """One vector for each of the classification's prompted names, float32 [N, E], L2-normalised.

        Raises:
          CocaError: a prompt is too long, unless `long_text` is "truncate".
        """
        names, templates = task.prompted_names, list(task.templates)
        key = hashlib.sha256(json.dumps([names, templates, long_text]).encode()).hexdigest()[:16]
        if key not in self._made:
            large = len(names) * len(templates) >= _WORTH_KEEPING
            if large and self._folder is not None:
                path = self._folder / "classifiers" / f"{self._coca.digest}-{key}.npy"
                self._made[key] = self._from_file(path, names, templates, long_text)
            else:
                self._made[key] = self._build(names, templates, long_text)
        return self._made[key]

    def _from_file(
        self, path: epath.Path, names: list[tuple[str, ...]], templates: Sequence[str], long_text: str
    ) -> np.ndarray:
        """The classifier of a file; if that is missing or damaged, the classifier is built and the file written."""
        data = hosts.from_first(lambda: _read(path))  # all processes take it, or all build it
        try:
            stored = np.load(io.BytesIO(data), allow_pickle=False)
            if stored.dtype == np.float32 and stored.ndim == 2 and len(stored) == len(names):
                return stored
        except (ValueError, EOFError, OSError):
            pass
        built = self._build(names, templates, long_text)
        if hosts.is_first():
            buffer = io.BytesIO()
            np.save(buffer, built, allow_pickle=False)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(buffer.getvalue())
            except OSError as error:  # on this process alone: raised, the others would wait for it
                _log.warning("the text classifier %s cannot be kept: %s", path, error)
        return built

    def _build(self, names: list[tuple[str, ...]], templates: Sequence[str], long_text: str) -> np.ndarray:
        if len(names) * len(templates) >= _WORTH_KEEPING:
            _log.info("embedding %d classes with %d prompts each", len(names), len(templates))
        each = [name for own in names for name in own]
        place = {name: i for i, name in enumerate(dict.fromkeys(each))}  # equal names get one vector, to the last digit
        distinct = text_classifier(lambda texts: self._coca.embed_texts(texts, long_text), list(place), templates)
        vectors = distinct[[place[name] for name in each]]
        if all(len(own) == 1 for own in names):
            return vectors
        starts = np.cumsum([0, *map(len, names)])[:-1]
        sums = np.add.reduceat(vectors, starts, axis=0)  # synonyms count alike
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _read(path: epath.Path) -> bytes:
    """The file's bytes; none if it is missing or cannot be read."""
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        _log.warning("the text classifier %s cannot be read and is built anew: %s", path, error)
        return b""
