"""Files of the COCO and NoCaps servers: captions to hand in, and the reference captions to score them against.

Both servers take one JSON list, [{"image_id": 42, "caption": "a dog"}, …], with exactly one caption an image.
"""

import json
import operator
import os
from collections.abc import Iterable, Mapping

from coca_jax.errors import CocaError
from coca_jax.storage.files import as_path, write_atomically


def write_results(path: str | os.PathLike, captions: Mapping[int, str], image_ids: Iterable[int] | None = None) -> None:
    """Writes captions for COCO's or NoCaps' online evaluation, by image id, and reads them back to be sure.

    Args:
      path: the file. COCO wants it named captions_<split>_<algorithm>_results.json.
      captions: a caption for each image; a line break or a run of spaces in one becomes a single space.
      image_ids: the images of the split, if they are known: then each must have its caption.

    Raises:
      CocaError: an id is no integer, a caption is missing or too many, or the file does not read back the same.
    """
    rows = {_image_id(image): " ".join(caption.split()) for image, caption in captions.items()}
    if image_ids is not None:
        wanted = {_image_id(image) for image in image_ids}
        missing, unknown = sorted(wanted - rows.keys()), sorted(rows.keys() - wanted)
        if missing:
            raise CocaError(f"{len(missing)} images have no caption, {missing[0]} the first: caption the whole split")
        if unknown:
            raise CocaError(f"{len(unknown)} captions are of images outside the split, {unknown[0]} the first")
    if not rows:
        raise CocaError(f"there are no captions to write to {path}")
    results = [{"image_id": image, "caption": rows[image]} for image in sorted(rows)]
    write_atomically(path, json.dumps(results, ensure_ascii=False, separators=(",", ":")) + "\n")
    if read_results(path) != rows:
        raise CocaError(f"{path} does not read back as it was written: check the disk and write it again")


def read_results(path: str | os.PathLike) -> dict[int, str]:
    """The captions of a results file, by image id.

    Raises:
      CocaError: the file is missing, is in another format or has two captions for one image.
    """
    rows = _read_json(path)
    captions: dict[int, str] = {}
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        match row:
            case {"image_id": int(image), "caption": str(caption)} if not isinstance(image, bool):
                if image in captions:
                    raise CocaError(f"{path} has two captions for image {image}: the metrics take one an image")
                captions[image] = caption
            case _:
                form = 'a list of {"image_id": 42, "caption": "a dog"}'
                raise CocaError(f"{path} is not in COCO's results format, {form}: see its entry {number}")
    return captions


def read_references(path: str | os.PathLike) -> dict[int, list[str]]:
    """The captions of an annotations file of COCO or NoCaps, {"annotations": [{"image_id", "caption"}, …]}.

    Raises:
      CocaError: the file is missing or in another format; the captions of a test split, for one, are not public.
    """
    captions: dict[int, list[str]] = {}
    match _read_json(path):
        case {"annotations": [*rows]} if rows:
            pass
        case _:
            raise CocaError(f'{path} has no list of "annotations": name a captions file of COCO or NoCaps')
    for number, row in enumerate(rows):
        match row:
            case {"image_id": int(image), "caption": str(caption)}:
                captions.setdefault(image, []).append(caption)
            case _:
                raise CocaError(f'annotation {number} of {path} lacks "image_id" or "caption": name a captions file')
    return captions


def _image_id(image: object) -> int:
    try:
        if isinstance(image, bool):
            raise TypeError
        return operator.index(image)  # numpy's integers too
    except TypeError:
        raise CocaError(f"image id {image!r} is no integer: COCO and NoCaps know images by integers") from None


def _read_json(path: str | os.PathLike) -> object:
    try:
        return json.loads(as_path(path).read_bytes())
    except FileNotFoundError:
        raise CocaError(f"there is no {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CocaError(f"{path} is not JSON ({error})") from None
