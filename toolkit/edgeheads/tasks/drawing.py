"""Pieces that tasks draw their predictions with."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_color", "colorize", "side_by_side", "with_scale"]

# Dark violet to pale yellow, of steadily growing lightness, so that it also reads in grey.
_PALETTE = np.array(
    [
        (8, 5, 29),
        (59, 15, 112),
        (114, 31, 129),
        (168, 50, 125),
        (222, 73, 104),
        (250, 121, 92),
        (254, 178, 122),
        (252, 238, 176),
    ],
    np.float32,
)
_SCALE_WIDTH = 72


def colorize(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return values in [0, 1] as colours [..., 3], from dark to light."""
    at = np.clip(np.nan_to_num(values), 0, 1) * (len(_PALETTE) - 1)
    low = np.minimum(at.astype(np.intp), len(_PALETTE) - 2)
    share = (at - low)[..., None]
    return (_PALETTE[low] * (1 - share) + _PALETTE[low + 1] * share + 0.5).astype(np.uint8)


def side_by_side(*panels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures [H, w, 3] of one height next to each other, with a white gap."""
    gap = np.full((panels[0].shape[0], 8, 3), 255, np.uint8)
    pieces = [piece for panel in panels for piece in (panel, gap)][:-1]
    return np.concatenate(pieces, axis=1)


def with_scale(panel: NDArray[np.uint8], top: str, bottom: str) -> NDArray[np.uint8]:
    """Return the panel with its colour scale at the right: `top` labels the light end."""
    from PIL import Image, ImageDraw

    height = panel.shape[0]
    strip = np.full((height, _SCALE_WIDTH, 3), 255, np.uint8)
    strip[:, 4:16] = colorize(np.linspace(1, 0, height))[:, None]
    canvas = Image.fromarray(strip)
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 2), top, fill=(0, 0, 0))
    draw.text((20, height - 14), bottom, fill=(0, 0, 0))
    return np.concatenate([panel, np.asarray(canvas)], axis=1)


def class_color(index: int) -> tuple[int, int, int]:
    """Return the colour of a class: neighbours in the list are far apart in hue, all are bright."""
    # Steps of the golden angle never repeat and always fall into the widest gap.
    hue = index * 0.618034 % 1.0
    red, green, blue = (int(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.95))
    return red, green, blue
