"""Line charts of a run's numbers, and numbers as texts.

A chart's geometry is in per cent: its template draws curves as SVG that stretches with the page (strokes excepted), and
ticks as HTML, whose size stays.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from coca_jax.pages.blocks import Chart, Curve

_POINTS = 400  # per line; more rows than this are averaged in groups
_SMOOTH_ABOVE = 60  # points from which a line is drawn as its moving average
_LOG_ABOVE = 12.0  # ratio of largest to smallest value from which the axis is logarithmic


class Line(NamedTuple):
    """A line to draw: its name in the legend, its key in the rows, and its style, a class of the style sheet."""

    name: str
    key: str
    style: str = "line-1"


def number(value: float) -> str:
    """A number for people: 12,345 · 123 · 1.23 · 0.0123 · 1.2e-05."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if magnitude >= 1e-3 else f"{value:.1e}"


def percent(fraction: float) -> str:
    """71.2%, and 100% without decimals."""
    if not math.isfinite(fraction):
        return "–"
    text = f"{100 * fraction:.1f}"
    return ("100" if text == "100.0" else text) + "%"


def column(rows: Sequence[Mapping], key: str) -> np.ndarray:
    """The rows' values of a key, NaN where one is missing or is no finite number: float64 [rows]."""
    values = [row.get(key) for row in rows]
    usable = [isinstance(value, (int, float)) and math.isfinite(value) for value in values]
    return np.array([value if good else math.nan for value, good in zip(values, usable, strict=True)], np.float64)


def line_chart(
    rows: Sequence[Mapping],
    lines: Sequence[Line],
    title: str,
    form: Callable[[float], str] = number,
    small: bool = False,
) -> list[Chart]:
    """One chart with a curve for each key that has at least two values; an empty list if no key has.

    Args:
      rows: in order of "step".
      lines: the keys to draw.
      title, small: of the chart.
      form: writes a value.
    """
    steps = column(rows, "step")
    columns = {line: values for line in lines if np.isfinite(values := column(rows, line.key)).sum() >= 2}
    if not columns or not np.isfinite(steps).any():
        return []
    latest = [form(values[np.isfinite(values)][-1]) for values in columns.values()]
    group = math.ceil(len(steps) / _POINTS)
    steps = np.append(steps[group - 1 : -1 : group], steps[-1])
    thinned = [_thin(values, group) for values in columns.values()]
    scale = _Scale.of(np.concatenate(thinned), few=small)
    first, last = float(steps[0]), float(max(steps[-1], steps[0] + 1e-9))
    x = (steps - first) / (last - first) * 100
    ticks = [last] if small else [step for step in _round_numbers(first, last, 5) if first <= step <= last]
    drawn = list(zip(columns, thinned, latest, strict=True))
    chart = Chart(
        title=title,
        curves=[
            Curve(line.name, line.style, text, _polylines(line, x, scale, values, small))
            for line, values, text in drawn
        ],
        y_ticks=[(form(value).replace(".0%", "%"), place) for value, place in scale.ticks()],
        x_ticks=[(f"{step:,.0f}", (step - first) / (last - first) * 100) for step in ticks],
        readings={
            "x": [round(float(v), 2) for v in x],
            "step": [f"{v:,.0f}" for v in steps],
            "lines": [_readings(line, values, scale, form) for line, values, _ in drawn],
        },
        small=small,
    )
    return [chart]


@dataclasses.dataclass(frozen=True)
class _Scale:
    """Values to per cent from the top."""

    low: float
    high: float
    logarithmic: bool
    few: bool

    @classmethod
    def of(cls, values: np.ndarray, few: bool) -> "_Scale":
        values = values[np.isfinite(values)]
        low, high = float(values.min()), float(values.max())
        if low > 0 and high / low > _LOG_ABOVE and not few:
            return cls(low / 1.15, high * 1.15, True, few)
        if 0 <= low < 0.6 * high or (few and low >= 0):
            low = 0.0
        margin = (high - low or abs(high) or 1.0) * 0.06
        return cls(low - (margin if low else 0.0), high + margin, False, few)

    def place(self, values):
        if self.logarithmic:
            return 100 * (np.log(self.high) - np.log(values)) / (np.log(self.high) - np.log(self.low))
        return 100 * (self.high - values) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, float]]:
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        else:
            values = _round_numbers(self.low, self.high, 2 if self.few else 5)
        return [(value, float(self.place(value))) for value in values if self.low <= value <= self.high]


def _round_numbers(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.99)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, int(high / step + 1e-9) + 1)]


def _thin(values: np.ndarray, group: int) -> np.ndarray:
    """The means of groups of neighbouring values; missing values do not count."""
    padded = np.pad(values, (0, -len(values) % group), constant_values=math.nan)
    return np.ma.masked_invalid(padded.reshape(-1, group)).mean(axis=1).filled(math.nan)


def _polylines(line: Line, x: np.ndarray, scale: _Scale, values: np.ndarray, small: bool) -> list[tuple[str, str]]:
    """Styles and points of the curve; a long one is its moving average, with the values themselves faintly behind."""
    known = np.isfinite(values)
    drawn = [(line.style, values[known])]
    if known.sum() > _SMOOTH_ABOVE and not small:
        smooth = ndimage.uniform_filter1d(values[known], 1 + 2 * max(1, known.sum() // 60), mode="nearest")
        drawn = [(f"{line.style} raw", values[known]), (line.style, smooth)]
    return [
        (style, " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x[known], scale.place(y), strict=True)))
        for style, y in drawn
    ]


def _readings(line: Line, values: np.ndarray, scale: _Scale, form: Callable[[float], str]) -> dict:
    """A text and a height for each value, which the page's script shows under the pointer."""
    return {
        "name": line.name,
        "style": line.style,
        "text": [form(v) if math.isfinite(v) else "–" for v in values],
        "y": [round(float(v), 2) if math.isfinite(v) else None for v in scale.place(values)],
    }
