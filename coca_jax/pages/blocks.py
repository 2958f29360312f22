"""The blocks that a page is made of. They hold data; `templates/blocks.html` has a macro of the same name for each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title inside a section, with a quiet sentence below it."""

    title: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; its style is "lead", "detail", "quote" or "warning"."""

    paragraph: str
    style: str = "detail"


@dataclasses.dataclass(frozen=True)
class Tile:
    """A share from 0 to 1 in large digits over a meter, which marks the baseline if there is one."""

    label: str
    value: float
    detail: str
    baseline: float | None = None
    baseline_name: str = "chance"


@dataclasses.dataclass(frozen=True)
class Tiles:
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Labels with values: a grid of texts, or a row of large numbers."""

    items: Mapping[str, str]
    large: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's value with a quiet note beside it."""

    text: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts or cells. The first of a row is its header; a caption names the table for screen readers.

    Attributes:
      head: the columns' names; empty: the table has no head.
      folded: the summary under which the table is hidden until it is opened.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    folded: str = ""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A confusion matrix, int [classes, classes], its rows the true classes; colours show shares of a row."""

    labels: Sequence[str]
    counts: np.ndarray
    caption: str


@dataclasses.dataclass(frozen=True)
class CardLine:
    """A label and a text below it; `mark` puts ✓ or ✗ beside the label, with the note or else "right" or "wrong"."""

    label: str = ""
    text: str = ""
    mark: bool | None = None
    note: str = ""
    quiet: bool = True


@dataclasses.dataclass(frozen=True)
class Card:
    """An image, uint8 [H, W, 3], with lines below it.

    Attributes:
      image: None: a card without an image.
      alt: a text for those who do not see the image.
      second: an image to show beside the first.
    """

    image: np.ndarray | None
    lines: Sequence[CardLine] = ()
    alt: str = ""
    second: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Cards in a grid; its layout is "cards", "strip" (eight small ones a row) or "pairs" (wide)."""

    title: str
    cards: Sequence[Card]
    detail: str = ""
    layout: str = "cards"


@dataclasses.dataclass(frozen=True)
class Pixels:
    """An image, uint8 [H, W, 3], lossless, each pixel a square of `scale` pixels."""

    image: np.ndarray
    alt: str
    scale: int = 1


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Pieces of a tokenised text: (piece, id, whether it is special)."""

    pieces: Sequence[tuple[str, int, bool]]


@dataclasses.dataclass(frozen=True)
class Bars:
    """A histogram: a horizontal bar for each (label, count)."""

    title: str
    rows: Sequence[tuple[str, int]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart: its name, its style (a class of the style sheet), its last value, and (style, points) drawn."""

    name: str
    style: str
    latest: str
    polylines: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A line chart in per cent of its width and height; `charts.line_chart` makes it from rows of numbers.

    Attributes:
      y_ticks, x_ticks: (text, place in per cent).
      readings: JSON for the page's script, which shows the values under the pointer.
      small: low and without a legend, for several side by side.
    """

    title: str
    curves: Sequence[Curve]
    y_ticks: Sequence[tuple[str, float]]
    x_ticks: Sequence[tuple[str, float]]
    readings: Mapping[str, Any]
    small: bool = False


@dataclasses.dataclass(frozen=True)
class Columns:
    """Blocks side by side, as many columns as fit; each at least `width` pixels wide where the page is."""

    columns: Sequence[Sequence["Block"]]
    width: int = 440


Block = Heading | Text | Tiles | Facts | Table | Matrix | Gallery | Pixels | Tokens | Bars | Chart | Columns


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading; one with an anchor is linked from the page's navigation."""

    title: str
    anchor: str
    blocks: Sequence[Block]
