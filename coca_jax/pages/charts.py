"""Line charts as inline SVG, with HTML for the words so that they keep their size at every width.

The lines stretch with the page (`preserveAspectRatio="none"`, strokes excepted); ticks are placed in per cent.
"""

import dataclasses
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

_POINTS = 400  # per line; more rows than this are averaged in groups
_CALM_ABOVE = 60  # points from which a line is drawn as its moving average
_LOG_ABOVE = 12.0  # ratio of largest to smallest value from which the axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart: its legend, the rows' key, and its style, a class of the page's style sheet."""

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
    label: str,
    form: Callable[[float], str] = number,
    small: bool = False,
) -> str:
    """A `<figure>` with one line per key that has at least two values; "" where none has.

    Args:
      rows: in order of "step".
      lines: what to draw.
      label: the figure's caption.
      form: how values are written.
      small: without a legend and low, for several side by side.
    """
    steps = column(rows, "step")
    drawn = []
    for line in lines:
        values = column(rows, line.key)
        if np.isfinite(values).sum() >= 2:
            drawn.append((line, values))
    if not drawn or not np.isfinite(steps).any():
        return ""
    last = [form(values[np.isfinite(values)][-1]) for _, values in drawn]
    steps, columns = _thin(steps, [values for _, values in drawn])
    scale = _Scale.of(np.concatenate(columns), few=small)
    span = (steps[0], max(steps[-1], steps[0] + 1e-9))
    x = (steps - span[0]) / (span[1] - span[0]) * 100
    data = {
        "x": [round(float(v), 2) for v in x],
        "step": [f"{v:,.0f}" for v in steps],
        "lines": [_reading(line, values, scale, form) for (line, _), values in zip(drawn, columns, strict=True)],
    }
    legend = "".join(
        f'<li><i class="{line.style}"></i>{html.escape(line.name)} <b>{latest}</b></li>'
        for (line, _), latest in zip(drawn, last, strict=True)
    )
    ticks = [(form(value).replace(".0%", "%"), place) for value, place in scale.ticks()]
    said = ", ".join(f"{line.name} ends at {latest}" for (line, _), latest in zip(drawn, last, strict=True))
    return _FIGURE.format(
        kind="chart small" if small else "chart",
        label=html.escape(label),
        latest=f"<b>{last[0]}</b>" if small else "",
        legend="" if small else f'<ul class="legend">{legend}</ul>',
        said=html.escape(f"{label} by step: {said}. Arrow keys read single values.", quote=True),
        ticks="".join(f'<span class="y" style="top:{place:.2f}%">{words}</span>' for words, place in ticks),
        grid="".join(f'<path class="grid" d="M0 {place:.2f}H100"/>' for _, place in ticks),
        paths="".join(_paths(line, x, values, scale, small) for (line, _), values in zip(drawn, columns, strict=True)),
        steps="".join(
            f'<span class="x" style="left:{(s - span[0]) / (span[1] - span[0]) * 100:.2f}%">{_short(s)}</span>'
            for s in ([span[1]] if small else _nice(*span, 5))
            if span[0] <= s <= span[1]
        ),
        # "<" as \u003c: no string in the data can end the script element.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


_FIGURE = """<figure class="{kind}">
<figcaption>{label} {latest}</figcaption>{legend}
<div class="plot" tabindex="0" role="img" aria-label="{said}">
<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{grid}{paths}</svg>
{ticks}{steps}<div class="cursor" hidden></div><output class="reading" hidden></output>
</div><script type="application/json">{data}</script>
</figure>"""


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
            values = _nice(self.low, self.high, 2 if self.few else 5)
        return [(value, float(self.place(value))) for value in values if self.low <= value <= self.high]


def _nice(low: float, high: float, count: int) -> list[float]:
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


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving average whose window shrinks towards both ends, so that they stay where they are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    half = np.minimum(np.minimum(at, len(values) - 1 - at), max(1, len(values) // 60))
    return (sums[at + half + 1] - sums[at - half]) / (2 * half + 1)


def _paths(line: Line, x: np.ndarray, values: np.ndarray, scale: _Scale, small: bool) -> str:
    """The line; where it is long, its moving average with the values themselves faintly behind."""
    known = np.isfinite(values)
    drawn = [(values[known], line.style)]
    if known.sum() > _CALM_ABOVE and not small:
        drawn = [(values[known], f"{line.style} raw"), (_smooth(values[known]), line.style)]
    paths = []
    for y, style in drawn:
        points = " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x[known], scale.place(y), strict=True))
        paths.append(f'<polyline class="{style}" points="{points}"/>')
    return "".join(paths)


def _reading(line: Line, values: np.ndarray, scale: _Scale, form: Callable[[float], str]) -> dict:
    """What the page's script shows under the pointer: a word and a height for each value."""
    return {
        "name": line.name,
        "style": line.style,
        "text": [form(v) if math.isfinite(v) else "–" for v in values],
        "y": [round(float(v), 2) if math.isfinite(v) else None for v in scale.place(values)],
    }
