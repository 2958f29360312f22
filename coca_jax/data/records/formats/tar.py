"""WebDataset tars by index: headers are scanned once, members are read in place and never extracted."""

import functools
import hashlib
import itertools
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields, shard_files, shard_index
from coca_jax.data.records.record import BadRecord, bad_records
from coca_jax.data.records.selection import Selection
from coca_jax.data.records.shard_index import Index, Strings
from coca_jax.data.records.sharded import ShardedRecords
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

_TEXTS = ("txt", "json", "cls")
_ABSENT = (-1, 0)
_PROBES = 100  # members whose names an error may list
_CAUSE = "unreadable tar"
# Errors of tarfile on damaged headers: sizes that are no numbers or beyond all files, headers of headers without end.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError)
_Members = dict[str, dict[str, tuple[int, int]]]  # by key and kind: offset and size


class TarRecords(ShardedRecords):
    """The images or clips of some tars, each with its `.txt` caption, `.json` metadata and `.cls` label.

    Members of one key (the path up to the name's first dot) make a record. A name with more dots, such as
    "Track 2.0 photo 3.jpg", has the key before its last dot, if one image and its text share that and no record has
    the key before the first dot. A tar that breaks off keeps the records before the break. `damage` counts breaks,
    duplicates, texts and images that are alone, unsupported images, and records whose dots leave their key ambiguous.
    """

    not_metadata = ("txt",)

    def __init__(self, dataset: DatasetConfig, selection: Selection):
        """Indexes the selected tars of `dataset.path`; CocaError if one cannot be read, or none has an image with a text."""
        files = shard_files.find_shards(dataset, selection)
        super().__init__(files, dataset, selection)
        if not self.census.total:
            if dataset.image_field:
                members = itertools.islice(_spans(files[0], Counter()), _PROBES)
                kinds = dict.fromkeys(name.rpartition("/")[2].partition(".")[2] for name, _ in members)
                raise CocaError(
                    f"the tars of {dataset.path} hold no image KEY.{dataset.image_field} with a text "
                    f"({files[0].path} has {fields.listing(f'KEY.{kind}' for kind in kinds)}): change image_field"
                )
            examples = ", ".join(f"{name} ({cause})" for cause, name in self.census.names.items())
            raise CocaError(
                f"the tars of {dataset.path} hold no image with a text: each needs KEY.png or KEY.jpg, and KEY.txt or "
                f"KEY.json beside it; there is {examples or files[0].path}"
            )
        if dataset.text_fields or dataset.label_field:
            self._check_fields()

    def _index(self, number: int) -> Index:
        return index(self._files[number], self._dataset.image_field)

    def _usable(self, number: int, index: Index) -> tuple[np.ndarray, str]:
        has_text = (index.spans[:, 2] >= 0) | (index.spans[:, 4] >= 0)
        if self._dataset.label_field or has_text.all():
            return super()._usable(number, index)
        return has_text, "image without text"

    def _read(self, number: int, index: Index, rows: Sequence[int], images: bool) -> list[Any]:
        table = index.spans[np.asarray(rows, np.int64)].reshape(len(rows), -1, 2)
        there = table[:, :, 0] >= 0
        there[:, 0] &= images
        reads = iter(bad_records(storage.read_spans(self._files[number].path, table[there].tolist(), _CAUSE)))
        result: list[Any] = []
        for row in there.tolist():
            members = [next(reads) if present else None for present in row]
            bad = (one for one in members if isinstance(one, BadRecord))
            result.append(next(bad, None) or (members[0], _row(members[1:])))
        return result


def _row(members: Sequence[Any]) -> dict[str, Any]:
    """The fields of a record's text, metadata and label."""
    text, metadata, label = members
    value = None if metadata is None else fields.parse_json(metadata)
    row = value if isinstance(value, dict) else {}
    if text is not None:
        row["txt"] = text
    if label is not None:
        value = label.decode("utf-8", "replace").strip()
        row["cls"] = int(value) if value.isdecimal() and value.isascii() and len(value) < 10 else value
    return row


def index(file: File, image_field: str = "", beside: bool = False) -> Index:
    """Where the records of a file lie: scanned once, then read from beside it or from the cache folder.

    Args:
      image_field: what follows the first dot of an image's name; "": any usual ending.
      beside: keep a new index beside the file even in a bucket.

    Raises:
      CocaError: the file is not of the format, or cannot be read.
    """
    usual = (*fields.IMAGE_SUFFIXES, *fields.CLIP_SUFFIXES, fields.TOKEN_SUFFIX)
    kinds = (image_field.lower(),) if image_field else usual
    name = re.sub(r"[^a-z0-9._-]", "_", image_field.lower())
    scan = functools.partial(_scan, images=kinds)
    return shard_index.index_of(file, name, scan, columns=2 + 2 * len(_TEXTS), beside=beside)


def _scan(file: File, images: Sequence[str]) -> Index:
    members: _Members = {}
    dotted: dict[str, _Members] = {}  # by the key before the first dot: members of keys before the last one
    damage, names = Counter[str](), dict[str, str]()
    duplicates: dict[str, None] = {}
    unread: dict[str, tuple[str, str]] = {}  # images that are not supported, by key: the path, and the shorter key
    for path, span in _spans(file, damage):
        folder, _, name = path.rpartition("/")
        stem, _, kind = name.partition(".")
        key, kind = f"{folder}/{stem}" if folder else stem, kind.lower()
        group = members.setdefault(key, {})
        if kind not in images and kind not in _TEXTS:
            long_key, _, kind = path.rpartition(".")
            kind = kind.lower()
            if kind not in images and kind not in _TEXTS:
                if kind in fields.UNREAD_SUFFIXES:
                    unread[long_key] = path, key
                continue
            key, group = long_key, dotted.setdefault(key, {}).setdefault(long_key, {})
        if kind in group:
            duplicates[key] = None  # the first one stays
        else:
            group[kind] = span

    def count(cause: str, key: str) -> None:
        damage[cause] += 1
        names.setdefault(cause, key)

    rows: dict[str, tuple[int, ...]] = {}
    for key, kinds in members.items():
        ambiguous = bool(kinds)
        for name, one in {key: kinds, **dotted.get(key, {})}.items():
            media = [one[kind] for kind in images if kind in one]
            has_text = any(kind in one for kind in _TEXTS)
            if name != key and media and has_text and (ambiguous or len(media) > 1):
                count("ambiguous key with dots", name)
            elif media and (name == key or not ambiguous):
                rows[name] = (*media[0], *(number for kind in _TEXTS for number in one.get(kind, _ABSENT)))
            elif has_text and (name == key or not ambiguous) and name not in unread:
                count("text without image", name)
    for key, (path, shorter) in unread.items():
        if key not in rows and shorter not in rows:  # else it is a further component of a record
            count(fields.unread_image(path), key)
    for key in duplicates:
        count("duplicate key", key)
    spans = np.array(list(rows.values()), np.int64).reshape(len(rows), 2 + 2 * len(_TEXTS))
    keys = Strings.of(rows)
    digest = hashlib.sha256(spans.tobytes() + keys.data.tobytes()).hexdigest()
    return Index(spans, keys, damage=+damage, names=names, digest=digest)


def _spans(file: File, damage: Counter[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path, offset and size of each regular member, without hidden ones; counts a broken tail in `damage`."""
    try:
        with storage.open_file(file) as data, tarfile.open(fileobj=data, mode="r:") as tar:
            try:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # typeshed lacks it; tarfile would keep every header
                    # At a negative size tarfile would go back, and never end.
                    if member.size < 0 or (_is_plain(member) and member.offset_data + member.size > file.size):
                        damage["broken tar tail"] += 1
                        break
                    if _is_plain(member) and not storage.is_hidden(member.name):
                        yield member.name, (member.offset_data, member.size)
                else:
                    damage["broken tar tail"] += _goes_on(data, tar.offset)
            except _DAMAGE:
                damage["broken tar tail"] += 1
    except (*_DAMAGE, OSError) as error:
        raise shard_files.unreadable(file, "a tar", error) from error


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _goes_on(data: Any, offset: int) -> bool:
    """Whether something other than a tar's end (zeros, or nothing) stands in place of its last header."""
    data.seek(offset)
    block = data.read(tarfile.BLOCKSIZE)
    return bool(block.strip(b"\0")) or 0 < len(block) < tarfile.BLOCKSIZE
