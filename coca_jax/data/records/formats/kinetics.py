"""Kinetics' lists of clips (arXiv 1705.06950): train.csv and its kin, with the columns

    label,youtube_id,time_start,time_end,split

Its downloaders name a clip YOUTUBEID_000012_000022.mp4, after its seconds, and put all into one folder or into one a class.
Videos that have left YouTube are normal: the list names many clips that no copy of the dataset has.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from coca_jax.data.records import fields
from coca_jax.data.records.shard_index import Strings
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage

FILE_FIELD = "video"  # made; one of the usual names of a file's column
NOT_THERE = "clip not on the disk"  # the cause by which clips that the list alone has are counted
_COLUMNS = {"youtube_id", "time_start", "time_end"}


def is_list(columns: Iterable[str]) -> bool:
    """Whether a table with such columns is a list of Kinetics, which names no files itself."""
    names = set(columns)
    return names >= _COLUMNS and not names.intersection(fields.FILE_FIELDS)


def with_clip(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with its clip's file as `FILE_FIELD`; as it is if its times are no numbers."""
    try:
        start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
    except (ValueError, OverflowError):
        return row
    return {**row, FILE_FIELD: f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"}


def clips_on_disk(names: Strings, path: str) -> tuple[str, Strings]:
    """The folder that holds the clips of a list, and each clip's path below it; "" if it is not there.

    They are looked for anywhere below the list's folder, or if that is named annotations and has none, below the folder
    above; the first in the order of paths counts. Any kind of clip will do: .mkv for the list's .mp4.

    Args:
      names: the files as the list has them.
      path: of the list.

    Raises:
      CocaError: none of them is there.
    """
    above = path.rpartition("/")[0] or "."
    places = [above]
    if above.rpartition("/")[2] == "annotations":
        places.append(above.rpartition("/")[0] or ("/" if above.startswith("/") else "."))
    wanted = (names[i].rpartition(".")[0] for i in range(len(names)))
    stems = list(wanted)
    for place in places:
        there: dict[str, str] = {}
        for file in storage.list_files(place):
            stem, _, suffix = file.name.rpartition("/")[2].rpartition(".")
            if suffix.lower() in fields.CLIP_SUFFIXES and file.size >= 0:
                there.setdefault(stem, file.name)
        if not there.keys().isdisjoint(stems):
            return place, Strings.of(there.get(stem, "") for stem in stems)
    raise CocaError(
        f"none of the {len(names):,} clips of {path}, such as {names[0]}, lies below {' or '.join(places)}: put them there, "
        "in one folder or in one a class"
    )
