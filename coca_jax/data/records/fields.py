"""Values of a record's row of metadata (a JSON object, a line of a table, a tf.train.Example) by the names of fields.

A field is a key of the row; "captions/text" (the values "text" below "captions", through dicts and lists); or, with
braces, a template over fields: "{question} {answer}". Rows that are lists have the fields "0", "1", …
"""

import contextlib
import itertools
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coca_jax.config import DatasetConfig
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

# The usual names, of which the first that a row has is taken. Captions, if `text_fields` is empty (tars have "txt"); …
TEXT_FIELDS = tuple(
    "txt captions caption text captions/text caption/text image/caption sentences/raw sentences texts alt_text TEXT "
    "title description".split()
)
# … encoded images, if `image_field` is empty; …
IMAGE_FIELDS = ("image", "jpg", "jpeg", "png", "webp", "gif", "image/encoded", "image_bytes", "video", "mp4", "img")
# … and image files, in a manifest.
FILE_FIELDS = tuple(
    "file_name filename image image_path filepath path file video file_path image_file image_name img img_path".split()
)

# Suffixes of files that the decoder reads, in every format and command.
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "jfif", "jpe", "avif", "apng")
CLIP_SUFFIXES = ("mp4", "mkv", "webm", "mov", "avi")
TOKEN_SUFFIX = "npy"  # of an image's stored tokens; taken where there is no image
# Suffixes of images that it does not read: such files are counted.
UNREAD_SUFFIXES = tuple("heic heif jxl jp2 svg psd ico tga ppm pgm pbm pnm pjpeg exr dng cr2 nef arw".split())
NOT_UTF8 = "caption is not UTF-8"  # a bad record's cause
_MOST_TEXTS = 100  # made by a template of one row
_MOST_NAMES = 20  # of fields in an error
_LONGEST = 4096  # bytes of a value that is kept as metadata


def is_media_file(name: str) -> bool:
    """Whether a file's name has a suffix of an image or a clip."""
    return suffix_of(name) in (*IMAGE_SUFFIXES, *CLIP_SUFFIXES)


def suffix_of(name: str) -> str:
    """A file name's suffix in lower case, without the dot."""
    return name.rpartition("/")[2].rpartition(".")[2].lower()


def unread_image(name: str) -> str:
    """The cause by which a file with one of `UNREAD_SUFFIXES` is counted."""
    return f".{suffix_of(name)} image (not supported)"


def check_templates(dataset: DatasetConfig) -> None:
    """Raises CocaError if a template of the config cannot be read."""
    images = ("image_field", dataset.image_field), ("second_image_field", dataset.second_image_field)
    for key, template in (*(("text_fields", one) for one in dataset.text_fields), *images):
        try:
            if template and "" in names_in(template):
                raise ValueError("braces without a name")
        except ValueError as error:
            todo = "write a field's name, or names in braces, such as '{question} {answer}'"
            raise CocaError(f"{key} has {template!r} ({error}): {todo}") from error


def is_template(field: str) -> bool:
    return "{" in field


def names_in(field: str) -> list[str]:
    """The names of the fields of a template, or the one name; raises ValueError if the template cannot be read."""
    return [name for _, name, _, _ in string.Formatter().parse(field) if name is not None] or [field]


def lookup(row: Any, field: str) -> Any:
    """The value of a row under a field's name; None if it has no such field."""
    if isinstance(row, Mapping):
        if field in row:
            return row[field]
        first, slash, rest = field.partition("/")
        while slash:
            if first in row:
                return lookup(row[first], rest)
            more, slash, rest = rest.partition("/")
            first = f"{first}/{more}"
        return None
    if isinstance(row, (list, tuple)):
        if field.isdecimal():
            return row[int(field)] if int(field) < len(row) else None
        values = [lookup(item, field) for item in row if isinstance(item, (Mapping, list))]
        return [value for value in values if value is not None] or None
    return None


def fill(template: str, row: Any) -> list[str]:
    """The texts that a template makes of a row: one a combination of its fields' values, none if a field is missing."""
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(template):
        pieces.append([literal])
        if name is not None:
            values = _listed(lookup(row, name))
            pieces.append([_text(item) for item in values if isinstance(item, (str, bytes, int, float))])
    return ["".join(choice) for choice in itertools.islice(itertools.product(*pieces), _MOST_TEXTS)]


def file_name(row: Any, field: str) -> str | None:
    """The file that a row names in a field, or if that is "" in the first of the usual ones; None if it names no file."""
    if is_template(field):
        return next(iter(fill(field, row)), None)
    values = (lookup(row, name) for name in ((field,) if field else FILE_FIELDS))
    return next((value for value in values if isinstance(value, str) and value), None)


def without_image(where: str, there: Iterable[str], dataset: DatasetConfig) -> str:
    """The sentence on rows that have no image under the configured name or a usual one, with the names that they have."""
    name = repr(dataset.image_field) if dataset.image_field else "a usual name"
    return f"{where} has no image under {name} (there is {listing(there)}): name its field in image_field"


def captions(row: Any, dataset: DatasetConfig) -> tuple[str, ...]:
    """A row's captions, from `text_fields` (all of them) or the first of the usual fields.

    With `caption_separator`, each value is divided at that text into several captions; "json" reads it as a JSON list.
    Raises BadRecord if the row is nested too deeply; or, unless texts are made from labels, if no text is left, one is
    not UTF-8, or not a JSON list where that is configured.
    """
    try:
        values: list[Any] = []
        if dataset.text_fields:
            for field in dataset.text_fields:
                values += _listed(fill(field, row) if is_template(field) else lookup(row, field))
        else:
            usual = (lookup(row, field) for field in TEXT_FIELDS)
            values = _listed(next((value for value in usual if value is not None), None))
        if dataset.caption_separator:
            values = [part for value in values for part in _divided(value, dataset.caption_separator)]
        return _cleaned(values)
    except RecursionError as error:
        raise BadRecord("unreadable row") from error
    except BadRecord:
        if dataset.label_field:
            return ()
        raise


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _divided(value: Any, separator: str) -> list[Any]:
    if not isinstance(value, (str, bytes)):
        return [value]
    if separator != "json":
        return list(_text(value).split(separator))
    texts = parse_json(_text(value))
    if not isinstance(texts, list):
        raise BadRecord("caption is not a JSON list")
    return texts


def _cleaned(texts: Sequence[Any]) -> tuple[str, ...]:
    """The texts with their spaces normalised; empty ones and other values are left out."""
    decoded = (_text(text) for text in texts if isinstance(text, (str, bytes)))
    cleaned = tuple(" ".join(text.split()) for text in decoded if text.strip())
    if not cleaned:
        raise BadRecord("empty caption")
    return cleaned


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRecord(NOT_UTF8) from error
    return str(value)


def metadata(row: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """A row as metadata: bytes become text, or are left out if long or not UTF-8; a list's fields are "0", "1", …"""
    result = {}
    for name, value in _items(row):
        if name in leave_out or (isinstance(value, bytes) and len(value) > _LONGEST):
            continue
        with contextlib.suppress(UnicodeDecodeError):
            result[name] = [_plain(item) for item in value] if isinstance(value, list) else _plain(value)
    return result


def _items(row: Any) -> Iterable[tuple[str, Any]]:
    return row.items() if isinstance(row, Mapping) else ((str(i), value) for i, value in enumerate(row or ()))


def _plain(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


class FieldCheck:
    """Finds the fields of a config that no row of a dataset has."""

    def __init__(self, dataset: DatasetConfig, made: Sequence[str] = ()):
        """`made`: labels that records have beside those of their rows."""
        wanted = [("text_fields", name) for field in dataset.text_fields for name in names_in(field)]
        if dataset.second_image_field:
            wanted += [("second_image_field", name) for name in names_in(dataset.second_image_field)]
        if dataset.label_field and dataset.label_field not in made:
            wanted.append(("label_field", dataset.label_field))
        self._missing: list[tuple[str, tuple[str, ...]]] = [(key, (name,)) for key, name in wanted]
        if not dataset.text_fields and not dataset.label_field:
            self._missing.append(("", TEXT_FIELDS))
        self._names: dict[str, None] = dict.fromkeys(made)

    def add(self, row: Any) -> "FieldCheck":
        """Takes note of a row's fields."""
        if self._missing:
            if len(self._names) <= _MOST_NAMES:
                self._names |= dict.fromkeys(name for name, _ in _items(row))
            with contextlib.suppress(RecursionError):  # nested too deeply: a bad record
                self._missing = [
                    (key, names) for key, names in self._missing if all(lookup(row, name) is None for name in names)
                ]
        return self

    def problem(self, where: str) -> str:
        """A sentence if a field is in none of the rows of `where`, with the names of those that are; else ""."""
        if not self._missing:
            return ""
        key, (name, *_) = self._missing[0]
        what = f"field {name!r}" if key else "caption under a usual name"
        todo = f"change {key}" if key else "name its field in text_fields, or a class's in label_field"
        return f"{where} has no {what} (there is {listing(self._names)}): {todo}"


def listing(names: Iterable[str]) -> str:
    """The first names, for an error."""
    some = list(itertools.islice(names, _MOST_NAMES + 1))
    return ", ".join(some[:_MOST_NAMES]) + (" …" if len(some) > _MOST_NAMES else "") or "none"


def load_json(text: bytes | str) -> Any:
    """The value of a JSON text, with "?" for each half of a surrogate pair; ValueError or RecursionError if it is none."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    value = json.loads(text)
    if r"\ud" in text or r"\uD" in text:  # no half can be encoded as UTF-8, so none may get to the tokeniser
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def parse_json(text: bytes | str) -> Any:
    """As `load_json`; None if it is not JSON."""
    try:
        return load_json(text)
    except (ValueError, RecursionError):
        return None
