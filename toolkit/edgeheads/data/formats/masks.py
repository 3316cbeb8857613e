"""Masks as COCO writes them: polygons, and runs of pixels, plain or packed into text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_runs", "fill_polygons", "unpack_runs"]

# Edges are laid over the rows of the image this many at a time, which bounds the memory.
_EDGES_AT_ONCE = 512


def fill_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels [H, W] whose centres lie in any of the polygons.

    Args:
        polygons: x and y in turn, in pixels, at least three points each.
        size: (height, width).

    Raises:
        ValueError: a polygon of fewer than three points, or with a number that is not finite.
    """
    filled = np.zeros(size, bool)
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
            raise ValueError(f"a polygon needs pairs of x and y, three or more: {polygon!s:.60}")
        filled |= _fill(points.reshape(-1, 2), size)
    return filled


def _fill(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    # Going along a row, each edge that is crossed turns inside into outside, or back.
    crossings = np.zeros((height, width + 1), np.int32)
    ends = np.roll(points, -1, axis=0)
    centres = np.arange(height) + 0.5
    for first in range(0, len(points), _EDGES_AT_ONCE):
        x0, y0 = points[first : first + _EDGES_AT_ONCE].T
        x1, y1 = ends[first : first + _EDGES_AT_ONCE].T
        low, high = np.minimum(y0, y1)[:, None], np.maximum(y0, y1)[:, None]
        edge, row = np.nonzero((low <= centres) & (centres < high))
        share = (centres[row] - y0[edge]) / (y1[edge] - y0[edge])
        x = x0[edge] + share * (x1[edge] - x0[edge])
        # The first pixel whose centre is right of the edge.
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
        np.add.at(crossings, (row, column), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings[:, :width], axis=1) % 2 == 1
    return inside


def decode_runs(runs: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask [H, W] of runs of background and object in turn, down column by column.

    Raises:
        ValueError: the runs do not cover the image exactly.
    """
    lengths = np.array(runs, np.int64)
    pixels = size[0] * size[1]
    if lengths.ndim != 1 or (lengths < 0).any() or int(lengths.sum()) != pixels:
        raise ValueError(f"the runs must cover {pixels} pixels, received {lengths.sum()}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(size[1], size[0]).T


def unpack_runs(text: str) -> list[int]:
    """Return the runs that COCO packed into text.

    Each character holds five bits of a number, lowest first, and a sixth that says whether more
    follow; from the third number on, each is the difference to the one two before.

    Raises:
        ValueError: the text ends in the middle of a number, or has other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"packed runs have the character {letter!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("packed runs end in the middle of a number")
    return runs
