"""Charts as inline SVG: no script, colours from the page, a text for screen readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

__all__ = ["curve", "histogram", "scatter"]

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 42


class _Axes:
    """Maps values to the drawing, and collects its parts."""

    def __init__(self, x: Sequence[float], y: Sequence[float], labels: tuple[str, str]) -> None:
        self.x, self.y = _limits(x), _limits(y)
        self.parts: list[str] = []
        for share in (0, 0.5, 1):
            at_x = self.x[0] + share * (self.x[1] - self.x[0])
            at_y = self.y[0] + share * (self.y[1] - self.y[0])
            px, py = self.place(at_x, at_y)
            end = "end" if share == 1 else "middle"
            self.parts += [
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py}" y2="{py}"/>',
                f'<text x="{_LEFT - 6}" y="{py + 4}" text-anchor="end">'
                f"{_label(at_y, self.y)}</text>",
                f'<text x="{px}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="{end}">'
                f"{_label(at_x, self.x)}</text>",
            ]
        middle = (_HEIGHT - _BOTTOM + _TOP) / 2
        self.parts += [
            f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f"{escape(labels[0])}</text>",
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(labels[1])}</text>",
        ]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    def svg(self, title: str) -> str:
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
            f"<title>{escape(title)}</title>{''.join(self.parts)}</svg>"
        )


def scatter(comparison: dict[str, Any]) -> str:
    """Draw accuracy over latency; a disc's area is the size, a ring marks the Pareto front."""
    points, metric = comparison["points"], comparison["metric"]
    arrow = "higher" if metric["higher_is_better"] else "lower"
    axes = _Axes(
        [one["p50_ms"] for one in points],
        [one["value"] for one in points],
        ("p50 latency, ms", f"{metric['title']} ({arrow} is better)"),
    )
    largest = max(one["size_bytes"] for one in points)
    for one in points:
        x, y = axes.place(one["p50_ms"], one["value"])
        radius = 4 + 8 * (one["size_bytes"] / largest) ** 0.5
        kind = "dot front" if one["on_pareto_front"] else "dot"
        end = x > _WIDTH * 0.7
        axes.parts.append(
            f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius:.1f}"/>'
            f'<text x="{x + (-15 if end else 15)}" y="{y + 4}" '
            f'text-anchor="{"end" if end else "start"}">{escape(one["precision"])}</text>'
        )
    return axes.svg(
        f"{comparison['task']} on {comparison['device']}: {metric['title']} over latency of "
        f"{len(points)} files"
    )


def histogram(series_ms: Sequence[float], title: str) -> str:
    """Draw how often each latency occurred; the slowest 1 % share the last bar."""
    values = np.asarray(series_ms, np.float64)
    counts, edges = np.histogram(np.minimum(values, np.percentile(values, 99)), bins=24)
    axes = _Axes([*edges], [0, *counts.tolist()], ("ms", "runs"))
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        x, y = axes.place(float(low), count)
        right, bottom = axes.place(float(high), 0)
        axes.parts.append(
            f'<rect class="bar" x="{x}" y="{y}" width="{max(0.5, right - x - 1):.1f}" '
            f'height="{max(0, bottom - y):.1f}"/>'
        )
    return axes.svg(title)


def curve(points: Sequence[dict[str, Any]], title: str) -> str:
    """Draw p50 over time of a sustained run; the axis of latency begins at 0."""
    x = [one["start_seconds"] for one in points]
    y = [one["p50_ms"] for one in points]
    axes = _Axes(x, [0, *y], ("seconds", "p50, ms"))
    line = " ".join("{},{}".format(*axes.place(*one)) for one in zip(x, y, strict=True))
    axes.parts.append(f'<polyline class="line" points="{line}"/>')
    return axes.svg(title)


def _label(value: float, limits: tuple[float, float]) -> str:
    """Return a number with as many digits as tell the axis' ends apart."""
    digits = max(0, 1 - math.floor(math.log10(limits[1] - limits[0])))
    return f"{value:.{min(digits, 6)}f}"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = float(min(values)), float(max(values))
    # Room at the ends, but values that cannot be negative get no axis that is.
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
