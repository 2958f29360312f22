"""Tables of one row a line: separated values (CSV, TSV), whose first line names the columns, and JSON Lines.

A row is reached by its byte offset and size. Lines end at line feeds alone: the other characters at which
`str.splitlines` would cut (U+2028, U+0085, form feeds, …) are part of a value.
"""

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from coca_jax.data.records import fields
from coca_jax.errors import CocaError
from coca_jax.storage import files as storage
from coca_jax.storage.files import File

SEPARATORS = (",", "\t", ";", "|")
_BOM = b"\xef\xbb\xbf"
_Row = tuple[int, int, Any, str]  # offset, size, the row, and its place as errors name it
_Line = tuple[int, bytes, str]  # offset, the line, and its place


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
      has_header: whether the first line names the columns; else they are "0", "1", …
    """

    columns: tuple[str, ...]
    separator: str
    spaced: bool
    naming: tuple[str, ...]
    has_header: bool = True

    @classmethod
    def of(
        cls, first_line: bytes, where: str, naming: Sequence[str], problem: Callable[[tuple[str, ...]], str]
    ) -> "SeparatedValues":
        """The style with the first of `SEPARATORS` that gives columns without a `problem`.

        Where `naming` has numbers alone, and the first line names no such column or an image at such a place, it is a row
        like all others.
        Raises CocaError if there is none, with the problem of the most columns, or if a column is named twice.
        """
        text = first_line.decode("utf-8", "replace").rstrip("\r")
        styles = []
        for separator in SEPARATORS:
            try:
                names = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
            except csv.Error as error:
                raise CocaError(f"{where} cannot be read ({error}): save the file with line feeds") from error
            columns = tuple(name.strip() for name in names)
            has_header = _is_header(columns, naming)
            columns = columns if has_header else tuple(map(str, range(len(columns))))
            styles.append(cls(columns, separator, f"{separator} " in text, tuple(naming), has_header))
        styles.sort(key=lambda style: -len(style.columns))
        style = next((one for one in styles if not problem(one.columns)), styles[0])
        twice = [name for name in style.columns if name and style.columns.count(name) > 1]
        if twice:
            raise CocaError(f"{where} has the column {twice[0]!r} twice: give each column a name of its own")
        if why := problem(style.columns):
            raise CocaError(why)
        return style

    def rows(self, file: File, utf8: Utf8, observe: Callable[[bytes], None]) -> Iterator[_Row]:
        """The rows below the header, as dicts of text; a quoted value may hold line feeds.

        Raises CocaError if a row has more or fewer values than there are columns, or a quoted value does not end.
        """
        lines = _lines(file, observe)
        if self.has_header:
            next(lines, None)
        taken: list[_Line] = []  # the lines of one row

        def texts() -> Iterator[str]:
            for line in lines:
                taken.append(line)
                yield utf8.decode(line[1], line[2]).rstrip("\n") + "\n"

        reader = self._reader(texts())
        while (values := self._next(reader, taken)) is not None:
            offset, _, where = taken[0]
            size = sum(len(line) for _, line, _ in taken)
            taken.clear()
            if not any(value.strip() for value in values):
                continue  # a blank line, or one of separators alone
            if len(values) != len(self.columns):
                mend = f"put quotation marks around a value that holds {self.separator!r}"
                if len(values) < len(self.columns):
                    mend = "write the missing values, or remove the line"
                first = f"names {len(self.columns)} columns ({', '.join(self.columns)})"
                first = first if self.has_header else f"has {len(self.columns)}"
                raise CocaError(
                    f"{where} has {len(values)} value{'s' * (len(values) != 1)}, but the first line {first}: {mend}"
                )
            yield offset, size, dict(zip(self.columns, values, strict=True)), where

    def parse(self, text: str) -> dict[str, str] | None:
        """A row, from its text; None if it is none of this file's."""
        try:
            values = next(self._reader([text]), [])
        except csv.Error:
            return None
        return dict(zip(self.columns, values, strict=True)) if len(values) == len(self.columns) else None

    def _reader(self, lines: Iterable[str], strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=self.spaced, strict=strict)

    def _next(self, reader: Iterator[list[str]], taken: Sequence[_Line]) -> list[str] | None:
        """The next row, which consists of the lines `taken`; None at the end of the file."""
        try:
            values = next(reader, None)
        except csv.Error as error:
            if len(taken) > 1:
                raise _unclosed(taken[0], str(error)) from error
            raise CocaError(f"{taken[0][2]} is not a row ({error}): correct or remove it") from error
        if values and (len(taken) > 1 or values[-1].endswith("\n")):
            self._check_quoted(taken)
        return values

    def _check_quoted(self, taken: Sequence[_Line]) -> None:
        """Raises CocaError if the lines of a quoted value are rows of their own, or its end is no end of a value."""
        texts = [line.decode("utf-8", "replace") for _, line, _ in taken]
        try:
            (first,) = self._reader(texts[:1])
            next(self._reader(texts, strict=True))
        except csv.Error as error:
            raise _unclosed(taken[0], str(error)) from error
        forms = self._forms(first if len(first) == len(self.columns) else texts[0].split(self.separator))
        # A row of its own names its image as the first one does, and has spaces behind separators only if all do.
        rows = [text for text in texts[1:] if self.spaced or f"{self.separator} " not in text]
        if any(forms) and any(self._forms(text.split(self.separator)) == forms for text in rows):
            raise _unclosed(taken[0], "more rows follow within it")

    def _forms(self, values: list[str]) -> list[str]:
        """How the values name an image: "media" for a file's name, others with 0 for all digits, if they have any."""
        pairs = zip(self.columns, values, strict=True) if len(values) == len(self.columns) else ()
        names = (value.strip(' "\r\n') for column, value in pairs if column in self.naming)
        return [_form(name) for name in names]


def _is_header(values: Sequence[str], naming: Sequence[str]) -> bool:
    """Whether the values of a first line name columns, of which the ones in `naming` name images."""
    if not all(map(str.isdecimal, naming)):
        return True
    images = (values[int(place)] for place in naming if int(place) < len(values))
    return not set(values).isdisjoint(naming) and not any(map(fields.is_media_file, images))


def _form(name: str) -> str:
    if fields.is_media_file(name):
        return "media"
    return re.sub(r"\d+", "0", name) if re.search(r"\d", name) else ""


def _unclosed(line: _Line, why: str) -> CocaError:
    return CocaError(
        f"{line[2]} has a value that begins with a quotation mark and does not end with one ({why}): close it, or write "
        'the value as """like this"", he said"'
    )


def _lines(file: File, observe: Callable[[bytes], None]) -> Iterator[_Line]:
    offset = 0
    with storage.open_file(file) as data:
        for number, line in enumerate(data, 1):
            observe(line)
            yield offset, line, f"line {number} of {file.path}"
            offset += len(line)
