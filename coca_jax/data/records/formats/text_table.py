"""Tables of one row a line: separated values (CSV, TSV), whose first line names the columns, and JSON Lines.

A row is reached by its byte offset and size. Lines end at line feeds alone: the other characters at which
`str.splitlines` would cut (U+2028, U+0085, form feeds, …) are part of a value.
"""

import csv
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from coca_jax.data.records import fields
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

SEPARATORS = (",", "\t", ";", "|")
_BOM = b"\xef\xbb\xbf"
_Row = tuple[int, int, Any, str]  # offset, size, the row, and its place as errors name it


class Utf8:
    """Decodes the parts of a file as UTF-8, and counts those that are not."""

    def __init__(self) -> None:
        self._valid, self._invalid, self._first = 0, 0, ""

    def decode(self, data: bytes, where: str) -> str:
        """The text, with U+FFFD for bytes that are not UTF-8: one damaged caption makes one bad record."""
        data = data.removeprefix(_BOM)
        if data.isascii():
            return data.decode("ascii")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            self._invalid, self._first = self._invalid + 1, self._first or where
            return data.decode("utf-8", "replace")
        self._valid += 1
        return text

    def problem(self) -> str:
        """A sentence if the file as a whole has another encoding, rather than a few damaged rows; else ""."""
        if self._invalid <= max(1, self._valid):
            return ""
        return (
            f"{self._first} is not UTF-8, and neither are {self._invalid - 1:,} more texts: convert them, such as with "
            "`iconv -f WINDOWS-1252 -t UTF-8 FILE`"
        )


def json_lines(file: File, utf8: Utf8, observe: Callable[[bytes], None]) -> Iterator[_Row]:
    """The rows of a file with one JSON value a line; `observe` gets all bytes of the file, in order."""
    for offset, line, where in _lines(file, observe):
        if line.strip() and line.strip() != _BOM:
            yield offset, len(line), fields.parse_json(utf8.decode(line, where)), where


@dataclasses.dataclass(frozen=True)
class SeparatedValues:
    """How the rows of a file of separated values are written.

    Attributes:
      columns: their names.
      separator: between two values.
      spaced: whether spaces follow the separator ("file_name, caption").
      naming: the columns that may name a row's image.
    """

    columns: tuple[str, ...]
    separator: str
    spaced: bool
    naming: tuple[str, ...]

    @classmethod
    def of(
        cls, first_line: bytes, where: str, naming: Sequence[str], problem: Callable[[tuple[str, ...]], str]
    ) -> "SeparatedValues":
        """The style with the first of `SEPARATORS` that gives columns without a `problem`.

        Raises:
          CocaError: there is none, with the problem of the most columns; or the first line cannot be read, or names a
            column twice.
        """
        text = first_line.decode("utf-8", "replace").rstrip("\r")
        styles = []
        for separator in SEPARATORS:
            try:
                names = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
            except csv.Error as error:
                raise CocaError(f"{where} cannot be read ({error}): save the file with line feeds") from error
            columns = tuple(name.strip() for name in names)
            styles.append(cls(columns, separator, f"{separator} " in text, tuple(naming)))
        styles.sort(key=lambda style: -len(style.columns))
        style = next((one for one in styles if not problem(one.columns)), styles[0])
        twice = [name for name in style.columns if name and style.columns.count(name) > 1]
        why = problem(style.columns)
        if twice:
            why = f"{where} has the column {twice[0]!r} twice: give each column a name of its own"
        if why:
            raise CocaError(why)
        return style

    def rows(self, file: File, utf8: Utf8, observe: Callable[[bytes], None]) -> Iterator[_Row]:
        """The rows below the first line, as dicts of text; a quoted value may hold line feeds.

        Raises:
          CocaError: a row has more or fewer values than there are columns, or a quoted value does not end.
        """
        lines = _lines(file, observe)
        next(lines, None)
        for offset, line, where in lines:
            text, size = utf8.decode(line, where), len(line)
            text = text if text.endswith("\n") else f"{text}\n"
            values = self._values([text], where)
            if values and values[-1].endswith("\n"):  # its quotation mark is still open
                first = values if len(values) == len(self.columns) else text.split(self.separator)
                values, more = self._continued(text, self._forms(first), lines, utf8, where)
                size += more
            if not any(value.strip() for value in values):
                continue  # a blank line, or one of separators alone
            if len(values) != len(self.columns):
                mend = f"put quotation marks around a value that holds {self.separator!r}"
                if len(values) < len(self.columns):
                    mend = "write the missing values, or remove the line"
                raise CocaError(
                    f"{where} has {len(values)} value{'s' * (len(values) != 1)}, but the first line names "
                    f"{len(self.columns)} columns ({', '.join(self.columns)}): {mend}"
                )
            yield offset, size, dict(zip(self.columns, values, strict=True)), where

    def parse(self, text: str) -> dict[str, str] | None:
        """A row, from its text; None if it is none of this file's."""
        try:
            values = next(self._reader([text]), [])
        except csv.Error:
            return None
        return dict(zip(self.columns, values, strict=True)) if len(values) == len(self.columns) else None

    def _continued(
        self, text: str, forms: list[str], lines: Iterator[tuple[int, bytes, str]], utf8: Utf8, where: str
    ) -> tuple[list[str], int]:
        """The values of a row that goes on in further lines, and the bytes of those."""
        size, swallowed = 0, False

        def texts() -> Iterator[str]:
            nonlocal size, swallowed
            yield text
            for _, line, _ in lines:
                more = utf8.decode(line, where)
                size += len(line)
                # A row of its own names its image as the first one does, and has spaces behind separators only if all do.
                is_row = any(forms) and self._forms(more.split(self.separator)) == forms
                swallowed |= is_row and (self.spaced or f"{self.separator} " not in more)
                yield more

        values = self._values(texts(), where, strict=True)
        if swallowed:
            raise CocaError(_unclosed(where, "more rows follow within it"))
        return values, size

    def _reader(self, lines: Any, strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=self.spaced, strict=strict)

    def _values(self, lines: Any, where: str, strict: bool = False) -> list[str]:
        try:
            return next(self._reader(lines, strict), [])
        except csv.Error as error:
            if strict:
                raise CocaError(_unclosed(where, str(error))) from error
            raise CocaError(f"{where} is not a row ({error}): correct or remove it") from error

    def _forms(self, values: list[str]) -> list[str]:
        """How the values name an image: "media" for a file's name, others with 0 for all digits, if they have any."""
        pairs = zip(self.columns, values, strict=True) if len(values) == len(self.columns) else ()
        names = (value.strip(' "\r\n') for column, value in pairs if column in self.naming)
        return [_form(name) for name in names]


def _form(name: str) -> str:
    if fields.is_media_file(name):
        return "media"
    return re.sub(r"\d+", "0", name) if re.search(r"\d", name) else ""


def _unclosed(where: str, why: str) -> str:
    return (
        f"{where} has a value that begins with a quotation mark and does not end with one ({why}): close it, or write "
        'the value as """like this"", he said"'
    )


def _lines(file: File, observe: Callable[[bytes], None]) -> Iterator[tuple[int, bytes, str]]:
    """Offset, bytes and place of each line."""
    offset = 0
    with storage.open_file(file) as data:
        for number, line in enumerate(data, 1):
            observe(line)
            yield offset, line, f"line {number} of {file.path}"
            offset += len(line)
