"""JSON files of the field as the rows of a manifest: COCO's annotations, and Karpathy's splits.

    {"images": [{"id": 9, "file_name": "9.jpg", …}, …], "annotations": [{"image_id": 9, "caption": "…"}, …]}
    {"images": [{"filepath": "val2014", "filename": "9.jpg", "split": "test", "sentences": [{"raw": "…"}, …]}, …]}

A picture of COCO's has a row that describes it, and one for each annotation; Karpathy's say all in one. A file with
images alone (COCO's image_info_*.json, NoCaps') lists pictures without captions.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from coca_jax.config import DatasetConfig
from coca_jax.data.records import fields
from coca_jax.errors import CocaError

_BETWEEN = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()
_Span = tuple[int, int]  # start and end
_IMAGES, _ANNOTATIONS = "images", "annotations"


def items(text: str, place: int, what: str) -> Iterator[_Span]:
    """Where each item of the JSON list that begins at `place` lies; `what` names the list.

    Raises:
      CocaError: an item is no JSON, or the list has no end.
    """
    place = _BETWEEN.match(text, place + 1).end()
    number = 0
    while text[place : place + 1] != "]":
        number += 1
        _, end = _decoded(text, place, f"row {number} of {what}")
        yield place, end
        place = _BETWEEN.match(text, end).end()


def _decoded(text: str, place: int, where: str) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends."""
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        raise CocaError(f"{where} is no JSON ({error}): mend the file") from error


def rows(
    text: str,
    path: str,
    source: DatasetConfig,
    parsed: Callable[[_Span], Any],
    name_of: Callable[[Any, str], str],
    damage: Counter[str],
) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, picture's name and a person's name of each row; all of a picture's rows have its name.

    Args:
      text: the file, one character a byte.
      path: where it lies, for errors.
      source: what the config says of the set.
      parsed: a span's JSON.
      name_of: a picture's file, from its row and what errors call it.
      damage: gets what belongs to no record.

    Raises:
      CocaError: the file is of neither kind, or has no captions.
    """
    found = _lists(text, path)
    images, notes = found.get(_IMAGES), found.get(_ANNOTATIONS)
    if not images:
        raise CocaError(
            f"{path} is no JSON list of rows, nor COCO's annotations (images, annotations), nor Karpathy's "
            'splits (images with sentences): write [{"file_name": …}, …], or use .jsonl'
        )
    described = ((span, parsed(span), f"image {number} of {path}") for number, span in enumerate(images, 1))
    if not notes:
        for span, row, where in described:
            yield *span, name_of(_with_folder(row, source), where), where
        return
    owners = [(_number(row, "id"), *span, name_of(row, where), where) for span, row, where in described]
    names = {key: name for key, _, _, name, _ in owners if key is not None}
    said, captioned = [], set()
    for number, span in enumerate(notes, 1):
        row, where = parsed(span), f"annotation {number} of {path}"
        key = _number(row, "image_id")
        if key not in names:
            damage["annotation without picture"] += 1
            continue
        if not said:
            _check_said(row, where, source)
        captioned.add(key)
        said.append((*span, names[key], where))
    for key, *row in owners:
        if key in captioned:
            yield tuple(row)
        else:
            damage["picture without text"] += 1
    yield from said


def folders(path: str) -> list[str]:
    """Where the pictures of such a file are unpacked, apart from its own folder and `images/` there.

    coco/annotations/captions_train2017.json and coco/captions_train2017.json speak of coco/train2017/,
    dataset_flickr30k.json of flickr30k-images/ or flickr30k_images/ beside it.
    """
    above, _, name = path.rpartition("/")
    above = above or "."
    split = PurePosixPath(name).stem.rpartition("_")[2]
    places = [f"{above}/{folder}/" for folder in (split, f"{split}-{_IMAGES}", f"{split}_{_IMAGES}")]
    if above.rpartition("/")[2] == "annotations":
        top = above.rpartition("/")[0] or ("" if above.startswith("/") else ".")
        places += [f"{top}/{split}/", f"{top}/{_IMAGES}/{split}/", f"{top}/{_IMAGES}/", f"{top}/"]
    return places


def _lists(text: str, path: str) -> dict[str, list[_Span]]:
    """The items of the object's lists of images and annotations; what else it holds is passed over."""
    found = {}
    place = _BETWEEN.match(text, text.find("{") + 1).end()
    while text[place : place + 1] == '"':
        name, place = _decoded(text, place, path)
        place = _BETWEEN.match(text, place).end()
        if name in (_IMAGES, _ANNOTATIONS) and text[place : place + 1] == "[":
            found[name] = list(items(text, place, f"{name} of {path}"))
            place = found[name][-1][1] if found[name] else place
            place = text.index("]", place) + 1
        else:
            _, place = _decoded(text, place, f"{name!r} of {path}")
        place = _BETWEEN.match(text, place).end()
    return found


def _number(row: Any, field: str) -> int | str | None:
    value = row.get(field) if isinstance(row, dict) else None
    return value if isinstance(value, (int, str)) else None


def _with_folder(row: Any, source: DatasetConfig) -> Any:
    """Karpathy's rows of COCO name a picture's folder apart."""
    if source.image_field or not isinstance(row, dict):
        return row
    folder, name = row.get("filepath"), row.get("filename")
    if not isinstance(folder, str) or not isinstance(name, str):
        return row
    return {**row, "file_name": f"{folder}/{name}"}


def _check_said(row: dict[str, Any], where: str, source: DatasetConfig) -> None:
    """Refuses files of boxes or key points, of which every picture would be a bad record."""
    said = (fields.lookup(row, name) is not None for name in fields.TEXT_FIELDS)  # an empty caption is one bad record's
    if source.text_fields or source.label_field or any(said):
        return
    raise CocaError(
        f"{where} has no caption: take COCO's captions_*.json, or name what to read in data.dataset.text_fields or "
        "data.dataset.label_field"
    )
