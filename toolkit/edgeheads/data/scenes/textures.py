"""Procedural textures, filtered by the size of the pixel that looks at them.

A texture maps u, v [N] and the pixel's reach along them, all in periods of its pattern, to a
mix [N] in [0, 1] between two colours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from edgeheads.data.scenes.shapes import Floats

__all__ = ["TEXTURES", "Texture"]

Texture: TypeAlias = Callable[[Floats, Floats, Floats, Floats, Floats], Floats]


def _pulse(x: Floats, width: Floats, duty: np.float32) -> Floats:
    """Return the mean over `width` of a wave of period 1 that is 1 for `duty`, then 0."""

    def integral(position: Floats) -> Floats:
        whole = np.floor(position)
        return whole * duty + np.minimum(position - whole, duty)

    width = np.maximum(width, np.float32(1e-3))
    half = width * np.float32(0.5)
    return (integral(x + half) - integral(x - half)) / width


def _resolved(width: Floats) -> Floats:
    """Return 1 where a pixel spans at most half a period, down to 0 from one period on."""
    return np.minimum(np.maximum(2 - 2 * width, np.float32(0)), np.float32(1))


def _at(lattice: Floats, column: Floats, row: Floats) -> Floats:
    values: Floats = lattice[row.astype(np.int32) & 63, column.astype(np.int32) & 63]
    return values


def _noise(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    """Three octaves of value noise; an octave that the pixels cannot resolve becomes its mean."""
    total = np.full_like(u, 0.5)
    for octave, amplitude in enumerate((0.55, 0.28, 0.17)):
        x, y = u * 2**octave + 17 * octave, v * 2**octave + 29 * octave
        left, top = np.floor(x), np.floor(y)
        s, t = x - left, y - top
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        upper = _at(lattice, left, top) * (1 - s) + _at(lattice, left + 1, top) * s
        lower = _at(lattice, left, top + 1) * (1 - s) + _at(lattice, left + 1, top + 1) * s
        value = upper * (1 - t) + lower * t
        total += amplitude * (value - 0.5) * _resolved(np.maximum(du, dv) * 2**octave)
    return total


def _plain(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    return 0.3 * _noise(u, v, du, dv, lattice)


def _stripes(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    return _pulse(u, du, np.float32(0.5))


def _checker(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
    half = np.float32(0.5)
    across, down = _pulse(u, du, half), _pulse(v, dv, half)
    return across + down - 2 * across * down


def _courses(length: float, shift: float, joint: float) -> Texture:
    """Make a pattern of pieces laid in rows of height 1.

    Args:
        length: of a piece, in row heights.
        shift: how far each row is shifted against the one before, in piece lengths.
        joint: the width of the joints, in row heights.
    """
    scale, offset, gap = np.float32(length), np.float32(shift), np.float32(joint)

    def texture(u: Floats, v: Floats, du: Floats, dv: Floats, lattice: Floats) -> Floats:
        row: Floats = np.floor(v)
        along, reach = u / scale + offset * row, du / scale
        joints = np.maximum(_pulse(along, reach, gap / scale), _pulse(v, dv, gap))
        piece = _at(lattice, np.floor(along), row) - 0.5
        tint = 0.25 + 0.4 * piece * _resolved(np.maximum(reach, dv))
        return tint + (1 - tint) * joints

    return texture


TEXTURES: dict[str, Texture] = {
    "plain": _plain,
    "stripes": _stripes,
    "checker": _checker,
    "noise": _noise,
    "bricks": _courses(length=3.0, shift=0.5, joint=0.12),
    "tiles": _courses(length=1.0, shift=0.0, joint=0.04),
    "planks": _courses(length=7.0, shift=0.38, joint=0.06),
}
