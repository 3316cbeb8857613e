"""Pieces that tasks draw their predictions with."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "class_color",
    "colorize",
    "draw_boxes",
    "draw_points",
    "overlay_masks",
    "side_by_side",
    "with_legend",
    "with_scale",
]

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
_LEGEND_LINE = 14


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


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    texts: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
) -> NDArray[np.uint8]:
    """Return a copy of the image [H, W, 3] with boxes, each under its text, unless that is more
    than twice as wide: the texts of many small objects would hide them all.

    Args:
        image: of any size.
        boxes: [N, 4] in fractions of the image; the first is drawn last, on top.
        texts: [N].
        colors: [N].
    """
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(min(height, width) / 240))
    for box, text, color in reversed(list(zip(boxes, texts, colors, strict=True))):
        left, top, right, bottom = (
            round(float(share) * (side - 1))
            for share, side in zip(box, (width, height) * 2, strict=True)
        )
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=line)
        _, _, text_width, text_height = draw.textbbox((0, 0), text)
        if text and text_width <= 2 * (right - left):
            x = max(0, min(left, width - text_width - 2))
            y = max(0, top - text_height - 2)
            draw.rectangle((x, y, x + text_width + 2, y + text_height + 2), fill=color)
            draw.text((x + 1, y), text, fill=(0, 0, 0))
    return np.asarray(canvas)


def overlay_masks(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    colors: Sequence[tuple[int, int, int]],
) -> NDArray[np.uint8]:
    """Return a copy of the image [H, W, 3] with masks [N, H, W] laid over it, half transparent;
    the first is laid last, on top.
    """
    shown = image.copy()
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        shown[mask] = (image[mask].astype(np.uint16) + color) // 2
    return shown


def draw_points(
    image: NDArray[np.uint8],
    points: NDArray[np.floating[Any]],
    texts: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
    filled: Sequence[bool],
) -> NDArray[np.uint8]:
    """Return a copy of the image [H, W, 3] with points, each with its text at its right.

    Args:
        image: of any size.
        points: [N, 2], x and y in fractions of the image.
        texts: [N]; empty for none.
        colors: [N].
        filled: [N]; a disk, or else a ring.
    """
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    radius = max(2, round(min(height, width) / 120))
    for (x, y), text, color, full in zip(points, texts, colors, filled, strict=True):
        x, y = float(x) * width - 0.5, float(y) * height - 0.5
        disk = (x - radius, y - radius, x + radius, y + radius)
        # The dark rim shows it on a ground of its own colour.
        draw.ellipse(tuple(np.add(disk, (-1, -1, 1, 1))), outline=(0, 0, 0))
        draw.ellipse(disk, outline=color, fill=color if full else None)
        if text:
            _, top, text_width, bottom = draw.textbbox((0, 0), text)
            left = (
                x + radius + 2 if x + radius + 2 + text_width < width else x - radius - text_width
            )
            place = (max(0, left), min(max(0, y - (top + bottom) / 2), height - bottom - 1))
            draw.text(place, text, fill=color, stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)


def with_legend(
    panel: NDArray[np.uint8], entries: Sequence[tuple[str, tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    """Return the panel with a list of names and their colours at its right, as many as fit."""
    from PIL import Image, ImageDraw

    height = panel.shape[0]
    fitting = max(1, height // _LEGEND_LINE)
    shown = list(entries[:fitting])
    if len(entries) > fitting:
        shown[-1:] = [(f"and {len(entries) - fitting + 1} more", (255, 255, 255))]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = 24 + round(max((measure.textlength(name) for name, _ in shown), default=0))
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for row, (name, color) in enumerate(shown):
        top = row * _LEGEND_LINE + 2
        draw.rectangle((6, top, 15, top + 9), fill=color)
        draw.text((20, top - 1), name, fill=(0, 0, 0))
    return np.concatenate([panel, np.asarray(canvas)], axis=1)
