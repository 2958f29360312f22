"""NLVR2's statements on pairs of images (arXiv 1811.00491), as its repository has them: JSON lines in train.json, dev.json,
test1.json, …

    {"identifier": "train-10171-0-0", "sentence": "An image shows …", "label": "True", "directory": 57, …}

The statement's number at the end of the identifier aside, it names both images: train-10171-0-img0.png and -img1.png.
"""

import re
from typing import Any

_IDENTIFIER = re.compile(r"(\w+)-\d+-\d+(?=-\d+$)")  # split, set of pairs, pair; statement
IMAGE_FIELDS = ("left_image", "right_image")


def with_images(row: Any) -> Any:
    """A row of NLVR2 with both files as `IMAGE_FIELDS`; any other row as it is.

    Images of train lie in numbered folders (train/57/train-10171-0-img0.png), those of other splits in one of the split's
    name (dev/dev-850-0-img0.png).
    """
    if not isinstance(row, dict) or not isinstance(row.get("identifier"), str):
        return row
    match = _IDENTIFIER.match(row["identifier"])
    if not match:
        return row
    folder = f"{match[1]}/{row['directory']}" if "directory" in row else match[1]
    files = (f"{folder}/{match[0]}-img{side}.png" for side in range(2))
    return {**dict(zip(IMAGE_FIELDS, files, strict=True)), **row}
