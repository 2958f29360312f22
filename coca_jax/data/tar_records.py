"""WebDataset tars by index: headers are scanned once, members are read in place and never extracted."""

import fnmatch
import functools
import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coca_jax.data.images import BadRecord
from coca_jax.data.records import Record, captions_in, clean_captions, digest, parse_object
from coca_jax.errors import CocaError

_PICTURES = ("png", "jpg", "jpeg", "webp")
_LARGEST = 256 * 1024 * 1024  # bytes of one member; more is damage or malice
_ABSENT = (-1, 0)


class TarRecords:
    """The pictures of some tars, each with its `.txt` caption and `.json` metadata.

    Members of one key (the path up to the name's first dot) make a record. A tar that breaks off keeps the records
    before the break; it is counted in `damage`, as are pictures without any text.
    """

    def __init__(self, path: str, patterns: Sequence[str], without: Sequence[str] = ()):
        """Scans the tars below folder `path` whose names match one of `patterns` and none of `without`.

        Raises:
          CocaError: no such folder, no such tar, a file that is no tar, or no picture with a text in any of them.
        """
        self._files = _find(Path(path), patterns, without)
        self._keys, spans, self.damage = [], [], Counter()
        for number, file in enumerate(self._files):
            status = file.stat()
            keys, places, damage = _scan(file, status.st_size, status.st_mtime_ns)
            self._keys += keys
            spans += [(number, *place) for place in places]
            self.damage.update(damage)
        if not spans:
            raise CocaError(f"the tars of {path} ({self._files[0].name} …) hold no picture with a text: each needs "
                            "KEY.png or KEY.jpg, and KEY.txt or KEY.json beside it")
        # Columns: tar, then offset and size of picture, text and JSON. An array is a tenth of a list of tuples.
        self._spans = np.array(spans, np.int64)
        self.fingerprint = digest(*(f"{file.name}:{file.stat().st_size}" for file in self._files))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Record:
        picture = self._read(index, 1)
        return Record(self._keys[index], picture, self.captions(index), self.metadata(index))

    def captions(self, index: int) -> tuple[str, ...]:
        text = self._read(index, 3)
        if text is None:
            return clean_captions(captions_in(self.metadata(index)))
        try:
            return clean_captions(text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise BadRecord("caption is not UTF-8") from error

    def metadata(self, index: int) -> Mapping[str, Any]:
        text = self._read(index, 5)
        return {} if text is None else parse_object(text) or {}

    def key(self, index: int) -> str:
        return self._keys[index]

    def name(self, index: int) -> str:
        return f"{self._files[self._spans[index, 0]]}:{self._keys[index]}"

    def _read(self, index: int, column: int) -> bytes | None:
        tar, (offset, size) = self._spans[index, 0], self._spans[index, column : column + 2].tolist()
        if offset < 0:
            return None
        if size > _LARGEST:
            raise BadRecord("member too large")
        try:  # opened anew each time: a thousand tars would exceed the limit on open files
            descriptor = os.open(self._files[tar], os.O_RDONLY)
            try:
                data = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BadRecord("unreadable tar") from error
        if len(data) < size:
            raise BadRecord("unreadable tar")
        return data


def _find(folder: Path, patterns: Sequence[str], without: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise CocaError(f"the folder {folder} does not exist: set --config.data.path to the folder of the tars")

    def matches(name: str, choices: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, choice) for choice in choices)

    everything = sorted(path for path in folder.rglob("*.tar") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in everything]
    found = [path for path, name in zip(everything, names) if matches(name, patterns) and not matches(name, without)]
    if not found:
        there = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "no .tar file at all"
        but = f" and not {' '.join(without)}" if without else ""
        raise CocaError(f"no tar below {folder} matches {' '.join(patterns)}{but} (there is {there}): "
                        "change data.path, data.train_files or data.evaluation_files")
    return found


@functools.lru_cache(maxsize=1024)
def _scan(file: Path, size: int, modified: int) -> tuple[list[str], list[tuple[int, ...]], dict[str, int]]:
    """Keys, spans and damage of one tar; cached while the file's size and time of change stay the same."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    damage: Counter[str] = Counter()
    try:
        with tarfile.open(file, "r:") as tar:
            try:
                for member in tar:
                    tar.members = []  # tarfile would keep every header
                    if not member.isreg() or member.issparse():
                        continue
                    if member.offset_data + member.size > size:
                        damage["broken tar tail"] += 1
                        break
                    folder, _, name = member.name.rpartition("/")
                    stem, _, kind = name.partition(".")
                    members.setdefault(f"{folder}/{stem}" if folder else stem, {})[kind.lower()] = (
                        member.offset_data, member.size)
            except (tarfile.TarError, EOFError):
                damage["broken tar tail"] += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CocaError(f"{file} cannot be read as a tar ({error}): replace it, or leave it out of "
                        "data.train_files and data.evaluation_files") from error
    keys, places = [], []
    for key, kinds in members.items():
        picture = next((kinds[kind] for kind in _PICTURES if kind in kinds), None)
        if picture is None:
            continue
        if "txt" not in kinds and "json" not in kinds:
            damage["picture without text"] += 1
            continue
        keys.append(key)
        places.append((*picture, *kinds.get("txt", _ABSENT), *kinds.get("json", _ABSENT)))
    return keys, places, dict(damage)
