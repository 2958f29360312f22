"""Images with a text file of the same name beside each."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_files
from coca_jax.data.records.formats.text_table import Utf8
from coca_jax.data.records.record import BadRecord
from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

MADE_FIELDS = ("stem", "folder")  # of a record's metadata, made from the name of its file
_TEXT_PROBES = 20  # text files whose encoding is checked when a folder is opened


class Sidecars:
    """The images below a folder that have a text file beside them (with a label_field: all images).

    Attributes: as of `Manifests`.
    """

    def __init__(self, folder: str, files: Sequence[File], dataset: DatasetConfig, tables: Sequence[str]):
        """`tables` are files of the folder that may be manifests. Raises CocaError if there is no image."""
        self._folder, self._dataset, self._tables = folder, dataset, tables
        self.damage, self.examples = Counter[str](), dict[str, str]()
        texts = {file.name: file.size for file in files if file.name.endswith(".txt")}
        images = []
        stored = [file for file in files if fields.is_media_file(file.name)]
        stored = stored or [file for file in files if fields.suffix_of(file.name) == fields.TOKEN_SUFFIX]
        for file in stored:
            if file.size < 0:
                self._lose("link to nothing", file)
            elif dataset.label_field or _beside(file.name) in texts:
                images.append(file)
            else:
                self._lose("image without text", file)
        unread = [file for file in files if fields.suffix_of(file.name) in fields.UNREAD_SUFFIXES]
        for file in unread:
            self._lose(fields.unread_image(file.name), file)
        if not images and not self.damage["image without text"]:
            raise CocaError(_without_image(folder, files))
        if images and not dataset.label_field:
            beside = {_beside(file.name) for file in (*stored, *unread)}
            for file in files:
                if file.name in texts and file.name not in beside:
                    self._lose("text without image", file)
        self.names = self.paths = Strings.of(file.name for file in images)
        self.digest = storage.digest(*(f"{file.name}:{file.size}:{texts.get(_beside(file.name))}" for file in images))

    @property
    def advice(self) -> str:
        """The end of an error for a folder with tables that may have been meant; "" without one."""
        if not self._tables:
            return ""
        return f", or set the dataset's path to a table in it (there is {fields.listing(self._tables)})"

    def rows(self, indices: Sequence[int]) -> list[list[Any] | BadRecord]:
        """The text of each image as a row; a BadRecord if it cannot be read."""
        texts = storage.read_each([_beside(f"{self._folder}/{self.names[index]}") for index in indices])
        unread: list[Any] | BadRecord = [{}] if self._dataset.label_field else BadRecord("unreadable caption")
        return [unread if isinstance(text, storage.ReadError) else [{"txt": text}] for text in texts]

    def check(self) -> None:
        """Raises CocaError if a configured field does not exist, or the texts have another encoding than UTF-8."""
        problem = fields.FieldCheck(self._dataset, MADE_FIELDS).add({"txt": ""}).problem(f"the folder {self._folder}")
        problem += self.advice if problem else ""
        if not problem and len(self.names) and not self._dataset.label_field:
            utf8 = Utf8()
            paths = [_beside(f"{self._folder}/{name}") for name in spread(self.names, _TEXT_PROBES)]
            for path, text in zip(paths, storage.read_each(paths), strict=True):
                utf8.decode(b"" if isinstance(text, storage.ReadError) else text, path)
            problem = utf8.problem()
        if problem:
            raise CocaError(problem)

    def _lose(self, cause: str, file: File) -> None:
        self.damage[cause] += 1
        self.examples.setdefault(cause, file.path)


def spread(names: Strings, count: int) -> list[str]:
    """Some of the names, evenly spread."""
    some = np.linspace(0, len(names) - 1, min(count, len(names))).astype(np.int64)
    return [names[i] for i in np.unique(some).tolist()]


def _without_image(folder: str, files: Sequence[File]) -> str:
    """The error for a folder of files of which none is an image that is read."""
    kinds = [f".{fields.suffix_of(file.name)}" for file in files if "." in file.name]
    there = [kind for kind, _ in Counter(kinds).most_common(5)]
    unread = [kind for kind in there if kind[1:] in fields.UNREAD_SUFFIXES]
    other = shard_files.format_of(file.name for file in files)
    if other:
        advice = f"set format={other}"
    elif any(file.size < 0 for file in files):
        advice = "mend the links to files that do not exist"
    elif unread:
        advice = f"{' and '.join(unread)} files are not supported, so convert them to png or jpg"
    else:
        advice = "set the dataset's path to a folder of images (png, jpg, webp, …) or clips (mp4, mkv, webm, …)"
    return f"there is no image below {folder} (there is {', '.join(there) or 'nothing'}): {advice}"


def _beside(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.txt" if stem and "/" not in suffix else f"{name}.txt"
