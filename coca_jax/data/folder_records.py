"""A person's own folder of pictures, each with its caption, by index."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from coca_jax.data.images import BadRecord
from coca_jax.data.records import Record, captions_in, clean_captions, digest, parse_object
from coca_jax.errors import CocaError

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_LARGEST = 256 * 1024 * 1024  # bytes of one picture


class FolderRecords:
    """Pictures below a folder, captioned by `captions.jsonl`, `captions.csv` or a `.txt` file beside each.

    `captions.jsonl` has a row such as {"file_name": "a.jpg", "captions": ["…", "…"]} a picture ("caption" or "text"
    for a single one), `captions.csv` the columns file_name and caption, several rows a picture allowed. File names are
    relative to the folder or to its `images/`.
    """

    def __init__(self, path: str):
        """Lists the pictures and their captions.

        Raises:
          CocaError: no such folder, no picture, no caption, or a captions file that cannot be understood.
        """
        self._folder = Path(path)
        if not self._folder.is_dir():
            raise CocaError(f"the folder {path} does not exist: set --config.data.path to a folder of pictures")
        self.damage: Counter[str] = Counter()
        self._rows: list[tuple[str, dict[str, Any] | None]] = []  # file, and its row; None: a sidecar holds the caption
        if (self._folder / "captions.jsonl").is_file():
            self._rows = list(_merged(self._jsonl()).items())
        elif (self._folder / "captions.csv").is_file():
            self._rows = list(_merged(self._csv()).items())
        else:
            self._rows = [(name, None) for name in self._with_sidecar()]
        if not self._rows:
            raise CocaError(f"the pictures of {path} have no captions: put a text file of the same name beside each "
                            "(cat.jpg, cat.txt), or add captions.jsonl with rows "
                            '{"file_name": "cat.jpg", "caption": "a cat"}')
        self.fingerprint = digest(*(f"{name}:{self._size(name)}:{row}" for name, row in self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        path = self._folder / self._rows[index][0]
        try:
            if path.stat().st_size > _LARGEST:
                raise BadRecord("file too large")
            picture = path.read_bytes()
        except FileNotFoundError as error:
            raise BadRecord("missing file") from error
        except OSError as error:
            raise BadRecord("unreadable file") from error
        return Record(self.key(index), picture, self.captions(index), self.metadata(index))

    def captions(self, index: int) -> tuple[str, ...]:
        name, row = self._rows[index]
        if row is not None:
            return clean_captions(captions_in(row))
        try:
            return clean_captions((self._folder / name).with_suffix(".txt").read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise BadRecord("caption is not UTF-8") from error
        except OSError as error:
            raise BadRecord("unreadable caption") from error

    def metadata(self, index: int) -> Mapping[str, Any]:
        return self._rows[index][1] or {}

    def key(self, index: int) -> str:
        return self._rows[index][0]

    def name(self, index: int) -> str:
        return str(self._folder / self._rows[index][0])

    def _size(self, name: str) -> int:
        path = self._folder / name
        return path.stat().st_size if path.is_file() else -1

    def _with_sidecar(self) -> list[str]:
        pictures = sorted(
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("*")
            if path.suffix.lower() in _PICTURES and path.is_file()
        )
        if not pictures:
            raise CocaError(f"there is no picture below {self._folder}: set --config.data.path to a folder of "
                            "pictures (png, jpg, webp, …)")
        captioned = [name for name in pictures if (self._folder / name).with_suffix(".txt").is_file()]
        if len(captioned) < len(pictures):
            self.damage["picture without text"] += len(pictures) - len(captioned)
        return captioned

    def _jsonl(self):
        file = self._folder / "captions.jsonl"
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            row = parse_object(line)
            if row is None or not isinstance(row.get("file_name"), str):
                raise CocaError(f'line {number} of {file} is not a row such as {{"file_name": "cat.jpg", "caption": '
                                '"a cat"}: mend or remove it')
            yield self._place(row["file_name"], f"line {number} of {file}"), row

    def _csv(self):
        file = self._folder / "captions.csv"
        rows = csv.DictReader(_lines(file))
        if not {"file_name", "caption"} <= set(rows.fieldnames or ()):
            raise CocaError(f"{file} needs the columns file_name and caption in its first line: add them")
        for row in rows:
            where = f"line {rows.line_num} of {file}"
            if not row["file_name"]:
                raise CocaError(f"{where} names no file: mend or remove it")
            yield self._place(row["file_name"], where), row

    def _place(self, name: str, where: str) -> str:
        """The file's path relative to the folder, which it must not leave."""
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or ":" in name or "\0" in name:
            raise CocaError(f"{where} names the file {name!r}: it must lie below {self._folder}")
        inner = "images" / pure
        return str(inner if not (self._folder / pure).is_file() and (self._folder / inner).is_file() else pure)


def _merged(rows) -> dict[str, dict[str, Any]]:
    """One row a file: captions of several rows of a file are put together, in their order."""
    result: dict[str, dict[str, Any]] = {}
    for name, row in rows:
        said = captions_in(row)
        said = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        if name in result:
            result[name]["captions"] += said
        else:
            result[name] = {**row, "captions": list(said)}
    return result


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CocaError(f"{file} cannot be read as UTF-8 text ({error}): mend it") from error
