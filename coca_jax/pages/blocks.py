"""The blocks that a page is made of. They hold data; `templates/blocks.html` has a macro of the same name for each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Heading(NamedTuple):
    """A title inside a section, with a quiet sentence below it."""

    title: str
    detail: str = ""


class Text(NamedTuple):
    """A paragraph; its style is "lead", "detail", "quote" or "warning"."""

    paragraph: str
    style: str = "detail"


class Tile(NamedTuple):
    """A share from 0 to 1 in large digits over a meter, which marks the baseline if there is one."""

    label: str
    value: float
    detail: str
    baseline: float | None = None
    baseline_name: str = "chance"


class Tiles(NamedTuple):
    tiles: Sequence[Tile]


class Facts(NamedTuple):
    """Labels with values: a grid of texts, or a row of large numbers."""

    items: Mapping[str, str]
    large: bool = False


class Cell(NamedTuple):
    """A table's value with a quiet note beside it."""

    text: str
    note: str = ""


class Table(NamedTuple):
    """Rows of texts or cells. The first of a row is its header; a caption names the table for screen readers."""

    head: Sequence[str]  # names of the columns, or none
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    folded: str = ""  # the summary under which the table is hidden until it is opened


class Matrix(NamedTuple):
    """A confusion matrix, int [classes, classes], its rows the true classes; colours show shares of a row."""

    labels: Sequence[str]
    counts: np.ndarray
    caption: str


class CardLine(NamedTuple):
    """A label and a text below it; `mark` puts ✓ or ✗ beside the label, with the note or else "right" or "wrong"."""

    label: str = ""
    text: str = ""
    mark: bool | None = None
    note: str = ""
    quiet: bool = True


class Card(NamedTuple):
    """Images, uint8 [H, W, 3], side by side if there are several, with lines below."""

    images: Sequence[np.ndarray]
    lines: Sequence[CardLine] = ()
    alt: str = ""  # a text for those who do not see the images


class Gallery(NamedTuple):
    """Cards in a grid; its layout is "cards", "strip" (eight small ones a row) or "wide" (several images each)."""

    title: str
    cards: Sequence[Card]
    detail: str = ""
    layout: str = "cards"


class Pixels(NamedTuple):
    """An image, uint8 [H, W, 3], lossless, each pixel a square of `scale` pixels."""

    image: np.ndarray
    alt: str
    scale: int = 1


class Tokens(NamedTuple):
    """Pieces of a tokenised text: (piece, id, whether it is special)."""

    pieces: Sequence[tuple[str, int, bool]]


class Bars(NamedTuple):
    """A histogram: a horizontal bar for each (label, count)."""

    title: str
    rows: Sequence[tuple[str, int]]


class Curve(NamedTuple):
    """A line of a chart: its name, its style (a class of the style sheet), its last value, and (style, points) drawn."""

    name: str
    style: str
    latest: str
    polylines: Sequence[tuple[str, str]]


class Chart(NamedTuple):
    """A line chart in per cent of its width and height; `charts.line_chart` makes it from rows of numbers."""

    title: str
    curves: Sequence[Curve]
    y_ticks: Sequence[tuple[str, float]]  # text and place
    x_ticks: Sequence[tuple[str, float]]
    readings: Mapping[str, Any]  # JSON for the page's script, which shows the values under the pointer
    small: bool = False  # low and without a legend, for several side by side


class Columns(NamedTuple):
    """Blocks side by side, as many columns as fit; each at least `width` pixels wide where the page is."""

    columns: Sequence[Sequence["Block"]]
    width: int = 440


Block = Heading | Text | Tiles | Facts | Table | Matrix | Gallery | Pixels | Tokens | Bars | Chart | Columns


class Section(NamedTuple):
    """A part of a page with a heading; one with an anchor is linked from the page's navigation."""

    title: str
    anchor: str
    blocks: Sequence[Block]
