"""JSON files as the rows of a manifest. Three kinds are read:

    [{"file_name": "9.jpg", "caption": "…"}, ["what?", "a cat", 9], …]                            a list of rows
    {"images": [{"id": 9, "file_name": "9.jpg"}, …], "annotations": [{"image_id": 9, "caption": "…"}, …]}       COCO
    {"images": [{"filepath": "val2014", "filename": "9.jpg", "sentences": [{"raw": "…"}, …]}, …]}    Karpathy's splits

An image of COCO has the row that describes it, and one for each annotation; Karpathy's have a single row. A file with
images alone (COCO's image_info_*.json, NoCaps) lists images without captions. Annotations of other tasks (boxes, key
points) are refused unless `text_fields` or `label_field` names what to read in them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from coca_jax.config import DatasetConfig
from coca_jax.data.records.record import BadRecord
from coca_jax.errors import CocaError

_BETWEEN = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()
Span = tuple[int, int]  # start and end
_Id = int | str | None
_Owner = tuple[_Id, Span, str]  # an image's number, its row's place, and its file
_IMAGES, _ANNOTATIONS = "images", "annotations"


def rows(
    text: str,
    path: str,
    dataset: DatasetConfig,
    parsed: Callable[[Span, str], Any],
    name_of: Callable[[Any, str], str],
    damage: Counter[str],
) -> Iterator[tuple[tuple[Span, ...], str]]:
    """The places and the image file of each row; all rows of an image have its name.

    With `records = "rows"` an annotation is a row of two places, of which the first is that of its image's own row.

    Args:
      text: the file, one character a byte.
      parsed: returns a span's JSON; its second argument names the place in errors.
      name_of: returns an image's file, from its row and its place.
      damage: gets the counts of what belongs to no record.

    Raises:
      CocaError: the file is of none of the kinds, or is not JSON.
    """
    start = _after(text, 0)
    if text[start : start + 1] == "[":
        for number, (_, span) in enumerate(_items(text, start, path), 1):
            where = f"row {number} of {path}"
            yield (span,), name_of(parsed(span, where), where)
        return
    found = lists(text, path, {_IMAGES: None, _ANNOTATIONS: None})
    images, annotations = found.get(_IMAGES), found.get(_ANNOTATIONS)
    if not images:
        raise CocaError(
            f"{path} is no JSON list of rows, nor COCO's annotations (images, annotations), nor Karpathy's "
            'splits (images with sentences): write [{"file_name": …}, …], or use .jsonl'
        )
    places = [(span, f"image {number} of {path}") for number, (_, span) in enumerate(images, 1)]
    if not annotations:
        for span, where in places:
            yield (span,), name_of(_with_folder(parsed(span, where), dataset), where)
        return
    owners: list[_Owner] = []
    for span, where in places:
        row = parsed(span, where)
        owners.append((_identity(row, "id"), span, name_of(row, where)))
    notes = ((span, f"annotation {number} of {path}") for number, (_, span) in enumerate(annotations, 1))
    owned = [(span, _identity(parsed(span, where), "image_id")) for span, where in notes]
    yield from _annotated(owners, owned, dataset.records == "rows", damage)


def _annotated(
    owners: Sequence[_Owner], owned: Sequence[tuple[Span, _Id]], by_row: bool, damage: Counter[str]
) -> Iterator[tuple[tuple[Span, ...], str]]:
    """The rows of COCO's images and annotations, `by_row` each annotation with its image's."""
    known = {key: (span, name) for key, span, name in owners if key is not None}
    captioned = {key for _, key in owned if key in known}
    damage.update("annotation without image" for _, key in owned if key not in known)
    damage.update("image without text" for key, _, _ in owners if key not in captioned)
    if not by_row:
        yield from (((span,), name) for key, span, name in owners if key in captioned)
    for span, key in owned:
        if key is not None and key in known:
            image, name = known[key]
            yield (image, span) if by_row else (span,), name


def together(rows: list[Any]) -> list[Any]:
    """The rows of one image, each annotation with the values of the image's own row; BadRecord if the file has changed."""
    if len(rows) == 1:
        return rows
    if not all(isinstance(row, dict) for row in rows):
        raise BadRecord("unreadable row")
    if "image_id" in rows[0] or "image_id" not in rows[-1]:  # several rows of a file without annotations
        return rows
    return [{**row, **rows[0]} for row in rows[1:]]


def folders(path: str, split: str = "") -> list[str]:
    """Where the images of such a file are unpacked, apart from its own folder and `images/` there.

    coco/annotations/captions_train2017.json and coco/captions_train2017.json speak of coco/train2017/,
    dataset_flickr30k.json of flickr30k-images/ or flickr30k_images/ beside it. `split`: if the file's name does not end
    with it.
    """
    above, _, name = path.rpartition("/")
    above = above or "."
    split = split or PurePosixPath(name).stem.rpartition("_")[2]
    places = [f"{above}/{folder}/" for folder in (split, f"{split}-{_IMAGES}", f"{split}_{_IMAGES}")]
    if above.rpartition("/")[2] == "annotations":
        top = above.rpartition("/")[0] or ("" if above.startswith("/") else ".")
        places += [f"{top}/{split}/", f"{top}/{_IMAGES}/{split}/", f"{top}/{_IMAGES}/", f"{top}/"]
    return places


def lists(text: str, path: str, wanted: Mapping[str, Callable[[Any], Any] | None]) -> dict[str, list[tuple[Any, Span]]]:
    """The places of the items of some lists of the JSON object in a file; its other values are passed over.

    Args:
      text: the file, one character a byte.
      wanted: the lists' names, with functions that return what is to be kept of an item, None for nothing.

    Raises:
      CocaError: the file is not JSON.
    """
    result = {}
    place = _after(text, text.find("{") + 1)
    while text[place : place + 1] == '"':
        name, place = _decoded(text, place, path)
        place = _after(text, place)
        if name in wanted and text[place : place + 1] == "[":
            keep = wanted[name]
            items = _items(text, place, f"{name} of {path}")
            result[name] = [(keep(value) if keep else None, span) for value, span in items]
            place = result[name][-1][1][1] if result[name] else place
            place = text.index("]", place) + 1
        else:
            _, place = _decoded(text, place, f"{name!r} of {path}")
        place = _after(text, place)
    return result


def _items(text: str, place: int, what: str) -> Iterator[tuple[Any, Span]]:
    """Each item of the JSON list that begins at `place`, with its start and end; `what` names the list in errors."""
    place = _after(text, place + 1)
    number = 0
    while text[place : place + 1] != "]":
        number += 1
        value, end = _decoded(text, place, f"row {number} of {what}")
        yield value, (place, end)
        place = _after(text, end)


def _after(text: str, place: int) -> int:
    """The place behind white space, commas and colons."""
    match = _BETWEEN.match(text, place)
    return match.end() if match else place


def _decoded(text: str, place: int, where: str) -> tuple[Any, int]:
    """The JSON value that begins at a place, and its end."""
    try:
        return _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        raise CocaError(f"{where} is no JSON ({error}): correct the file") from error


def _identity(row: Any, field: str) -> _Id:
    value = row.get(field) if isinstance(row, dict) else None
    return value if isinstance(value, (int, str)) else None


def _with_folder(row: Any, dataset: DatasetConfig) -> Any:
    """Karpathy's rows of COCO hold an image's folder and name apart."""
    match row:
        case {"filepath": str(folder), "filename": str(name)} if not dataset.image_field:
            return {**row, "file_name": f"{folder}/{name}"}
    return row
