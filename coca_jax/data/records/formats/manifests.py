"""The rows of a folder's manifest, or of several manifests in folders below it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records.formats import vqa_json
from coca_jax.data.records.formats.manifest import Manifest, beginning
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.shard_index import Strings
from coca_jax.storage import files as storage
from coca_jax.storage.files import File


def open_manifest(file: File, dataset: DatasetConfig, trains: bool) -> Manifest | vqa_json.Questions:
    """The manifest in a file, whatever it holds; `trains`: its records are to be trained on; errors as of either class."""
    if file.path.lower().endswith(".json") and vqa_json.is_questions(beginning(file)):
        return vqa_json.Questions(file, dataset, trains)
    return Manifest(file, dataset)


class Manifests:
    """The rows of one manifest, or of several in folders below one.

    Attributes: as of `Manifest`, names and paths relative to the folder above all.
    """

    def __init__(self, parts: Sequence[tuple[str, Manifest | vqa_json.Questions]]):
        """Args: parts: the folder of each manifest, "" or with a slash at its end."""
        self._parts = [manifest for _, manifest in parts]
        self._prefixes = [folder for folder, _ in parts]
        self._ends = np.cumsum([len(manifest) for manifest in self._parts])
        self.damage, self.examples = Counter[str](), dict[str, str]()
        for folder, manifest in reversed(parts):
            self.damage.update(manifest.damage)
            self.examples |= {cause: f"{folder}{name}" for cause, name in manifest.examples.items()}
        self.folders: list[str] = []
        if self._prefixes == [""]:
            alone = self._parts[0]
            self.folders, self.names, self.digest = alone.folders, alone.names, alone.digest
            self.paths = alone.paths
        else:
            self.names = Strings.of(f"{folder}{one.names[i]}" for folder, one in parts for i in range(len(one)))
            self.digest = storage.digest(*(f"{folder}:{one.digest}" for folder, one in parts))
            self.paths = self.names

    def relative(self, index: int, name: str) -> str | None:
        """The path of a file that a row of the record names, as `paths` are; None if it leaves the manifest's folder."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        path = self._parts[number].files.relative(name)
        return None if path is None else f"{self._prefixes[number]}{path}"

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """All rows of each image; a BadRecord if one can no longer be read."""
        numbers = np.searchsorted(self._ends, np.asarray(indices, np.int64), side="right")
        result: list[Any] = [None] * len(indices)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number).tolist()
            first = int(self._ends[number - 1]) if number else 0
            rows = self._parts[number].rows([indices[place] - first for place in places])
            for place, row in zip(places, rows, strict=True):
                result[place] = row
        return result
