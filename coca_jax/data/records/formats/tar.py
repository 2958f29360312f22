"""WebDataset tars by index: headers are scanned once, members are read in place and never extracted."""

import functools
import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, index_cache, shard_index
from coca_jax.data.records.record import BadRecord, Record, bad_records
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_TEXTS = ("txt", "json", "cls")
_ABSENT = (-1, 0)
_CAUSE = "unreadable tar"
# What tarfile raises on damaged headers: sizes that are no numbers or beyond all files, headers of headers without end.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError)


class TarRecords(ShardedRecords):
    """The pictures or clips of some tars, each with its `.txt` caption, `.json` metadata and `.cls` label.

    Members of one key (the path up to the name's first dot) make a record. A tar that breaks off keeps the records
    before the break; it is counted in `damage`, as are a key's second picture or text, texts without a picture, and
    pictures without any text, where the set's text is not made from labels.
    """

    def __init__(self, source: DatasetConfig, selection: Selection):
        """Indexes the tars below folder `source.path` that are selected.

        Raises:
          CocaError: no such folder, no such tar, a file that is no tar, or no picture with a text in any of them.
        """
        files = index_cache.find_shards(source, selection, lambda name: name.endswith(".tar"), ".tar")
        super().__init__(files, source, selection)
        if not self.census.total:
            raise CocaError(
                f"the tars of {source.path} ({files[0].name} …) hold no picture with a text: each needs "
                "KEY.png or KEY.jpg, and KEY.txt or KEY.json beside it"
            )

    def _index(self, number: int) -> Index:
        return index(self._files[number], self._source.image_field)

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray | None, Mapping[str, int]]:
        del number
        if self._source.label_field:
            return None, {}
        texts = (index.spans[:, 2] >= 0) | (index.spans[:, 4] >= 0)
        return (None, {}) if texts.all() else (texts, {"picture without text": int((~texts).sum())})

    def _metadata(self, row: Any) -> dict[str, Any]:
        return fields.metadata(row, ("txt",))

    def _read_rows(self, number: int, index: Index, rows: Sequence[int]) -> list[Any]:
        return [
            members if isinstance(members, BadRecord) else _row(members)
            for members in self._members(number, index, rows, range(1, 1 + len(_TEXTS)))
        ]

    def _read_records(self, number: int, index: Index, rows: Sequence[int]) -> list[Record | BadRecord]:
        records = []
        for row, members in zip(rows, self._members(number, index, rows, range(1 + len(_TEXTS))), strict=True):
            try:
                if isinstance(members, BadRecord):
                    raise members
                said = _row(members[1:])
                captions = fields.captions(said, self._source)
                records.append(Record(index.keys[row], members[0], captions, self._metadata(said)))
            except BadRecord as error:
                records.append(error)
        return records

    def _members(
        self, number: int, index: Index, rows: Sequence[int], columns: Sequence[int]
    ) -> list[list[bytes | None] | BadRecord]:
        """The bytes of each row's members, None for one that is not there; neighbours are read together."""
        table = index.spans[np.asarray(rows, np.int64)].reshape(len(rows), -1, 2)[:, columns]
        there = table[:, :, 0] >= 0
        read = iter(bad_records(storage.read_spans(self._files[number].path, table[there].tolist(), _CAUSE)))
        result: list[list[bytes | None] | BadRecord] = []
        for row in there.tolist():
            members = [next(read) if present else None for present in row]
            bad = next((member for member in members if isinstance(member, BadRecord)), None)
            result.append(bad or members)
        return result


def _row(members: Sequence[bytes | None]) -> dict[str, Any]:
    text, metadata, label = members
    row = {} if metadata is None else fields.parse_object(metadata) or {}
    if text is not None:
        row["txt"] = text
    if label is not None:
        said = label.decode("utf-8", "replace").strip()
        row["cls"] = int(said) if said.isdecimal() and said.isascii() and len(said) < 10 else said
    return row


def index(file: File, image_field: str = "", beside: bool = False) -> Index:
    """Where a tar's records lie: made once, then read from beside the tar or from the cache folder.

    Args:
      file: the tar.
      image_field: what follows a picture's first dot; "": any usual ending.
      beside: keep a new index beside the tar even in a bucket.

    Raises:
      CocaError: the file is no tar, or cannot be read.
    """
    kinds = (
        (image_field.lower(),) if image_field else (*fields.IMAGE_SUFFIXES, *fields.CLIP_SUFFIXES, fields.TOKEN_SUFFIX)
    )
    name = re.sub(r"[^a-z0-9._-]", "_", image_field.lower())
    scan = functools.partial(_scan, pictures=kinds)
    return shard_index.index_of(file, name, scan, columns=2 + 2 * len(_TEXTS), beside=beside)


def _scan(file: File, pictures: Sequence[str]) -> Index:
    members: dict[str, dict[str, tuple[int, int]]] = {}
    damage: Counter[str] = Counter()
    twice = set()
    try:
        with storage.open_file(file) as data, tarfile.open(fileobj=data, mode="r:") as tar:
            try:
                for member in tar:
                    tar.members = []  # tarfile would keep every header
                    if member.size < 0:  # tarfile would go back, and never end
                        damage["broken tar tail"] += 1
                        break
                    if not member.isreg() or member.issparse():
                        continue
                    if member.offset_data + member.size > file.size:
                        damage["broken tar tail"] += 1
                        break
                    folder, _, name = member.name.rpartition("/")
                    stem, _, kind = name.partition(".")
                    key, kind = f"{folder}/{stem}" if folder else stem, kind.lower()
                    if kind in members.setdefault(key, {}):
                        twice.add(key)  # the first one stays
                    elif kind in pictures or kind in _TEXTS:
                        members[key][kind] = (member.offset_data, member.size)
                else:
                    damage["broken tar tail"] += _goes_on(data, tar.offset)
            except _DAMAGE:
                damage["broken tar tail"] += 1
    except (*_DAMAGE, OSError) as error:
        raise CocaError(
            f"{file.path} cannot be read as a tar ({error}): replace it, or leave it out of "
            "data.dataset.train_files and data.dataset.evaluation_files"
        ) from error
    found = {}
    for key, kinds in members.items():
        picture = next((kinds[kind] for kind in pictures if kind in kinds), None)
        if picture is not None:
            found[key] = (*picture, *(number for kind in _TEXTS for number in kinds.get(kind, _ABSENT)))
        elif kinds:
            damage["text without picture"] += 1
    damage["duplicate key"] += len(twice)
    spans = np.array(list(found.values()), np.int64).reshape(len(found), 2 + 2 * len(_TEXTS))
    keys = Strings.of(found)
    digest = hashlib.sha256(spans.tobytes() + keys.data.tobytes()).hexdigest()
    return Index(spans, keys, damage=+damage, digest=digest)


def _goes_on(data: Any, offset: int) -> bool:
    """Whether something other than a tar's end (zeros, or nothing) stands where its last header should."""
    data.seek(offset)
    block = data.read(tarfile.BLOCKSIZE)
    return bool(block.strip(b"\0")) or 0 < len(block) < tarfile.BLOCKSIZE
