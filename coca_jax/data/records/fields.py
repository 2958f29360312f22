"""What a row of metadata (a JSON object, a line of a table, a tf.train.Example) says under which name.

A field is a key of the row, "captions/text" (the values "text" below "captions", through dicts and lists), or, with
braces, a template over fields: "{question} {answer}"; rows that are lists have the fields "0", "1", …
"""

import itertools
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from coca_jax.config import DatasetConfig
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

# Where a set names no text_fields: the first of these that a row has. "txt" is the text file of a tar's record.
TEXT_FIELDS = (
    "txt",
    "captions",
    "caption",
    "text",
    "captions/text",
    "caption/text",
    "image/caption",
    "sentences/raw",
    "sentences",
    "texts",
    "alt_text",
    "TEXT",
)
# Where a set names no image_field: the first of these that a tf.train.Example has, …
IMAGE_FIELDS = ("image", "jpg", "jpeg", "png", "webp", "gif", "image/encoded", "image_bytes", "video", "mp4")
# … and the column of a manifest that names a picture's file.
FILE_FIELDS = ("file_name", "filename", "image", "image_path", "filepath", "path", "file", "video")

PICTURES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
CLIPS = ("mp4", "mkv", "webm", "mov", "avi")
_MOST_TEXTS = 100  # that a template makes of one row


def check_templates(source: DatasetConfig) -> None:
    """Raises CocaError where a template of the config cannot be read."""
    for key, template in (*(("text_fields", one) for one in source.text_fields), ("image_field", source.image_field)):
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise CocaError(
                f"{key} has {template!r} ({error}): write a field's name, or names in braces such as "
                "'{question} {answer}'"
            ) from error
        if "" in names:
            raise CocaError(
                f"{key} has {template!r}: put a field's name between the braces, such as {{question}} or {{0}}"
            )


def is_template(field: str) -> bool:
    return "{" in field


def lookup(row: Any, field: str) -> Any:
    """What a row says under a field's name; None where it has none such."""
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
        found = [lookup(item, field) for item in row if isinstance(item, (Mapping, list))]
        return [value for value in found if value is not None] or None
    return None


def fill(template: str, row: Any) -> list[str]:
    """The texts that a template makes of a row.

    One for each combination where fields hold several values; none where a field is missing.
    """
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(template):
        pieces.append([literal])
        if name is not None:
            value = lookup(row, name)
            values = value if isinstance(value, list) else [value]
            pieces.append([_spoken(item) for item in values if isinstance(item, (str, bytes, int, float))])
    return ["".join(choice) for choice in itertools.islice(itertools.product(*pieces), _MOST_TEXTS)]


def captions(row: Any, source: DatasetConfig) -> tuple[str, ...]:
    """A row's captions, from `source.text_fields` (all of them) or the first of the usual fields.

    Raises:
      BadRecord: the row is nested too deeply to be searched; or, unless the set's text is made from labels, no text is
        left ("empty caption") or one is not UTF-8.
    """
    try:
        if not source.text_fields:
            usual = (lookup(row, field) for field in TEXT_FIELDS)
            return clean_captions(next((found for found in usual if found is not None), None))
        said: list[Any] = []
        for field in source.text_fields:
            found = fill(field, row) if is_template(field) else lookup(row, field)
            said += found if isinstance(found, (list, tuple)) else [found]
        return clean_captions(said)
    except RecursionError as error:
        raise BadRecord("unreadable row") from error
    except BadRecord:
        if source.label_field:
            return ()
        raise


def clean_captions(texts: Any) -> tuple[str, ...]:
    """The texts with their spaces normalised, empty ones left out; one string counts as a list of one.

    Raises:
      BadRecord: no text is left, or one is not UTF-8.
    """
    if isinstance(texts, (str, bytes)):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        texts = ()
    found = (_spoken(text) for text in texts if isinstance(text, (str, bytes)))
    cleaned = tuple(" ".join(text.split()) for text in found if text.strip())
    if not cleaned:
        raise BadRecord("empty caption")
    return cleaned


def _spoken(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadRecord("caption is not UTF-8") from error
    return str(value)


def metadata(row: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """A row as metadata: bytes become text, or are left out where they are none; a list's fields are "0", "1", …"""
    pairs = row.items() if isinstance(row, Mapping) else ((str(i), value) for i, value in enumerate(row or ()))
    found = {}
    for name, value in pairs:
        if name in leave_out:
            continue
        try:
            found[name] = [_plain(item) for item in value] if isinstance(value, list) else _plain(value)
        except UnicodeDecodeError:
            continue
    return found


def _plain(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def load_json(text: bytes | str) -> Any:
    """What the JSON says, a "?" for each half of a surrogate pair.

    Raises:
      ValueError, RecursionError: it is none; bad UTF-8 is a ValueError, too.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    value = json.loads(text)
    if r"\ud" in text or r"\uD" in text:  # no half can be encoded as UTF-8, so none may get to the tokeniser
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def parse_json(text: bytes | str) -> Any:
    """As `load_json`; None where it is none."""
    try:
        return load_json(text)
    except (ValueError, RecursionError):
        return None


def parse_object(text: bytes | str) -> dict[str, Any] | None:
    """The JSON object that the text is; None where it is none."""
    value = parse_json(text)
    return value if isinstance(value, dict) else None
