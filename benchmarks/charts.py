"""Small SVG charts: points or lines on two axes, linear or logarithmic."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from typing import Literal

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 78

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """An axis with its label, range and ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """The position of a value between the low end (0) and the high end (1)."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Series:
    """A data series."""

    name: str
    colour: str
    points: Sequence[Point]
    style: Literal["points", "line", "dashed"] = "points"


@dataclass(frozen=True)
class Chart:
    """A chart with its axes and data."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]


def side_by_side(charts: Sequence[Chart]) -> str:
    """Draw the charts next to each other in one SVG file."""
    width = WIDTH * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for number, chart in enumerate(charts):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">{_draw(chart)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _draw(chart: Chart) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(value: float) -> float:
        return round(LEFT + chart.x.position(value) * (right - LEFT), 1)

    def up(value: float) -> float:
        return round(bottom - chart.y.position(value) * (bottom - TOP), 1)

    parts = [_text(chart.title, LEFT, 22, size=13, weight="600")]
    for tick in chart.x.ticks:
        parts.append(_text(f"{tick:,g}", across(tick), bottom + 16, anchor="middle"))
    for tick in chart.y.ticks:
        parts.append(f'<path d="M{LEFT} {up(tick)}H{right}" stroke="#e2e2e2"/>')
        parts.append(_text(f"{tick:,g}", LEFT - 6, up(tick) + 4, anchor="end"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333"/>')
    parts.append(_text(chart.x.label, (LEFT + right) / 2, bottom + 34, anchor="middle"))
    middle = (TOP + bottom) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle})">{_text(chart.y.label, 14, middle + 4, anchor="middle")}</g>')
    step = (right - LEFT) / len(chart.series)
    for number, series in enumerate(chart.series):
        parts.append(_mark(series, [(across(x), up(y)) for x, y in series.points]))
        left = LEFT + number * step
        parts.append(f'<rect x="{left:.0f}" y="{HEIGHT - 23}" width="9" height="9" fill="{series.colour}"/>')
        parts.append(_text(series.name, left + 13, HEIGHT - 15))
    return "".join(parts)


def _mark(series: Series, points: Sequence[Point]) -> str:
    if series.style == "points":
        return "".join(f'<circle cx="{x}" cy="{y}" r="2.2" fill="{series.colour}" fill-opacity="0.75"/>' for x, y in points)
    dashes = ' stroke-dasharray="5 3"' if series.style == "dashed" else ""
    path = "L".join(f"{x} {y}" for x, y in points)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{series.colour}"/>' for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{series.colour}" stroke-width="1.6"{dashes}/>{dots}'


def _text(text: str, x: float, y: float, *, anchor: str = "start", size: int = 11, weight: str = "400") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
