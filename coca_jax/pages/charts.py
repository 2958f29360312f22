"""Line charts of a run's numbers, and numbers as texts.

A chart's geometry is in per cent: its template draws curves as SVG that stretches with the page (strokes excepted), and
ticks as HTML, whose size stays.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coca_jax.pages.blocks import Chart, Curve

_POINTS = 400  # per line; more rows than this are averaged in groups
_SMOOTH_ABOVE = 60  # points from which a line is drawn as its moving average
_LOG_ABOVE = 12.0  # ratio of largest to smallest value from which the axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Line:
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
      title: the chart's caption.
      form: writes a value.
      small: without a legend and low, for several side by side.
    """
    steps = column(rows, "step")
    columns = {line: values for line in lines if np.isfinite(values := column(rows, line.key)).sum() >= 2}
    if not columns or not np.isfinite(steps).any():
        return []
    latest = [form(values[np.isfinite(values)][-1]) for values in columns.values()]
    steps, thinned = _thin(steps, list(columns.values()))
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
        x_ticks=[(_short(step), (step - first) / (last - first) * 100) for step in ticks],
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


def _short(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:,.0f}"


def _thin(steps: np.ndarray, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Groups of neighbouring rows averaged, so that at most _POINTS are left; missing values do not count."""
    size = math.ceil(len(steps) / _POINTS)
    starts = np.arange(0, len(steps), size)
    thinned = []
    for values in columns:
        known = np.isfinite(values)
        counts = np.add.reduceat(known.astype(np.float64), starts)
        sums = np.add.reduceat(np.where(known, values, 0.0), starts)
        thinned.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return steps[np.minimum(starts + size - 1, len(steps) - 1)], thinned


def _moving_average(values: np.ndarray) -> np.ndarray:
    """A centred moving average whose window shrinks towards both ends, so that they stay where they are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    half = np.minimum(np.minimum(at, len(values) - 1 - at), max(1, len(values) // 60))
    return (sums[at + half + 1] - sums[at - half]) / (2 * half + 1)


def _polylines(line: Line, x: np.ndarray, scale: _Scale, values: np.ndarray, small: bool) -> list[tuple[str, str]]:
    """Styles and points of the curve; a long one is its moving average, with the values themselves faintly behind."""
    known = np.isfinite(values)
    drawn = [(line.style, values[known])]
    if known.sum() > _SMOOTH_ABOVE and not small:
        drawn = [(f"{line.style} raw", values[known]), (line.style, _moving_average(values[known]))]
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
