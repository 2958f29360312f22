"""Files for the evaluation servers of data sets whose ground truth is not public.

COCO's and NoCaps' captioning servers take one JSON list, [{"image_id": 42, "caption": "a dog"}, …], with exactly one
caption an image.
"""

import json
import os
from collections.abc import Mapping

from coca_jax.errors import CocaError
from coca_jax.storage.files import write_atomically


def write_captions(path: str | os.PathLike, captions: Mapping[int, str]) -> None:
    """Writes captions for COCO's or NoCaps' online evaluation, by image id.

    Args:
      path: the file. COCO wants it named captions_<split>_<algorithm>_results.json.
      captions: a caption for each image; a line break or a run of spaces in one becomes a single space.

    Raises:
      CocaError: there is no caption.
    """
    if not captions:
        raise CocaError(f"there are no captions to write to {path}")
    rows = [{"image_id": int(image), "caption": " ".join(captions[image].split())} for image in sorted(captions)]
    write_atomically(path, json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n")
