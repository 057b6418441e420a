"""Charts as inline SVG: nothing to load, nothing that runs, and readable in light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 46
_FEWEST_TICKS: Final = 4

Point = tuple[float, float]


@dataclass
class Chart:
    """One chart. Things are drawn in the order in which they are added.

    Attributes:
        title: what it shows, for who cannot see it.
        x: range of the abscissa.
        y: range of the ordinate; of a logarithmic one above 0.
        x_label: what the abscissa is, with its unit.
        y_label: what the ordinate is.
        log_y: whether the ordinate is logarithmic.
        percent_y: whether the ordinate is shown in percent.
        width: in pixels of the SVG, which scales.
        height: likewise.
    """

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log_y: bool = False
    percent_y: bool = False
    width: int = 680
    height: int = 300
    _drawn: list[str] = field(default_factory=list)
    _named: list[tuple[str, str]] = field(default_factory=list)

    def line(self, points: Sequence[Point], style: str, name: str | None = None) -> None:
        """Draw a line; ``style`` is a class of the page's style sheet."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))
        self._drawn.append(f'<polyline class="line {style}" points="{path}"/>')
        self._name(name, style)

    def band(
        self, upper: Sequence[Point], lower: Sequence[Point], style: str, name: str | None = None
    ) -> None:
        """Fill what lies between two lines."""
        around = [*map(self._at, upper), *map(self._at, reversed(lower))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
        self._drawn.append(f'<polygon class="band {style}" points="{path}"/>')
        self._name(name, style)

    def dots(self, points: Sequence[Point], style: str, name: str | None = None) -> None:
        """Draw a dot at each point."""
        for x, y in map(self._at, points):
            self._drawn.append(f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        self._name(name, style)

    def bars(
        self, edges: Sequence[float], counts: Sequence[float], style: str, name: str | None = None
    ) -> None:
        """Draw a histogram."""
        for left, right, count in zip(edges, edges[1:], counts, strict=False):
            (x0, y0), (x1, y1) = self._at((left, count)), self._at((right, self.y[0]))
            if count > self.y[0]:
                width = max(0.5, x1 - x0 - 1)
                self._drawn.append(
                    f'<rect class="bar {style}" x="{x0 + 0.5:.1f}" y="{y0:.1f}" '
                    f'width="{width:.1f}" height="{y1 - y0:.1f}"/>'
                )
        self._name(name, style)

    def upright(self, x: float, style: str, name: str | None = None) -> None:
        """Draw an upright line through the whole chart."""
        at, _ = self._at((x, self.y[0]))
        self._drawn.append(
            f'<line class="line {style}" x1="{at:.1f}" x2="{at:.1f}" '
            f'y1="{_TOP}" y2="{self.height - _BOTTOM}"/>'
        )
        self._name(name, style)

    def level(self, y: float, style: str, name: str | None = None) -> None:
        """Draw a level line through the whole chart."""
        _, at = self._at((self.x[0], y))
        self._drawn.append(
            f'<line class="line {style}" x1="{_LEFT}" x2="{self.width - _RIGHT}" '
            f'y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        self._name(name, style)

    def svg(self) -> str:
        """Give the chart with its axes, and its legend below it."""
        x_axis = [
            f'<text class="tick" text-anchor="middle" x="{self._at((x, self.y[0]))[0]:.1f}" '
            f'y="{self.height - _BOTTOM + 18}">{_number(x)}</text>'
            for x in ticks(*self.x)
        ]
        y_axis = []
        for y in _powers(*self.y) if self.log_y else ticks(*self.y):
            at = self._at((self.x[0], y))[1]
            shown = _percent(y) if self.percent_y else _number(y)
            y_axis.append(
                f'<line class="grid" x1="{_LEFT}" x2="{self.width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{at + 4:.1f}">{shown}</text>'
            )
        middle = (_LEFT + self.width - _RIGHT) / 2
        down = (_TOP + self.height - _BOTTOM) / 2
        labels = (
            f'<text class="label" text-anchor="middle" x="{middle:.0f}" y="{self.height - 8}">'
            f"{escape(self.x_label)}</text>"
            f'<text class="label" text-anchor="middle" transform="translate(14 {down:.0f}) rotate(-90)">'
            f"{escape(self.y_label)}</text>"
        )
        legend = "".join(
            f'<span class="key"><span class="sample {style}"></span>{escape(name)}</span>'
            for name, style in self._named
        )
        return (
            f'<figure><svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}">'
            f"{''.join(y_axis)}{''.join(self._drawn)}{''.join(x_axis)}{labels}</svg>"
            f"<figcaption>{legend}</figcaption></figure>"
        )

    def _name(self, name: str | None, style: str) -> None:
        if name is not None:
            self._named.append((name, style))

    def _at(self, point: Point) -> Point:
        """Give where a point lies; what is outside lies on the border."""
        x, y = point
        low, high = self.y
        if self.log_y:
            low, high, y = math.log10(low), math.log10(high), math.log10(max(y, self.y[0]))
        across = min(1.0, max(0.0, (x - self.x[0]) / (self.x[1] - self.x[0])))
        up = min(1.0, max(0.0, (y - low) / (high - low)))
        return (
            _LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM),
        )


def ticks(low: float, high: float) -> list[float]:
    """Give four to nine round numbers of a range."""
    step = 10.0 ** math.floor(math.log10((high - low) / _FEWEST_TICKS))
    for factor in (5, 2):
        if (high - low) / (factor * step) >= _FEWEST_TICKS:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
