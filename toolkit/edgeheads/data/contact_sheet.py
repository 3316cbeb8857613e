"""A contact sheet: samples with their labels drawn, side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError, MissingDependencyError

__all__ = ["Cell", "contact_sheet"]

_GAP = 8
_LINE = 14
_WIDTH = 1320
_INK = (30, 30, 30)


@dataclass(frozen=True)
class Cell:
    """One sample on the sheet.

    Attributes:
        caption: its name.
        panels: {title: picture [h, w, 3]}, all of one size.
    """

    caption: str
    panels: dict[str, NDArray[np.uint8]]


def contact_sheet(cells: Sequence[Cell]) -> NDArray[np.uint8]:
    """Return one picture [H, W, 3] of all cells, row by row.

    Raises:
        EdgeheadsError: there is none.
    """
    if not cells:
        raise EdgeheadsError("there is no sample to draw; see what is wrong with the files")
    drawn = [_draw_cell(cell) for cell in cells]
    widest = max(picture.shape[1] for picture in drawn)
    columns = max(1, _WIDTH // (widest + _GAP))
    rows = [drawn[first : first + columns] for first in range(0, len(drawn), columns)]
    return np.concatenate([_row(row, columns * (widest + _GAP) + _GAP, widest) for row in rows])


def _draw_cell(cell: Cell) -> NDArray[np.uint8]:
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingDependencyError("pillow", "images", "drawing a contact sheet") from None
    height = max(panel.shape[0] for panel in cell.panels.values())
    width = sum(panel.shape[1] + 2 for panel in cell.panels.values()) - 2
    canvas = Image.new("RGB", (width, height + 2 * _LINE), "white")
    draw = ImageDraw.Draw(canvas)
    left = 0
    for title, panel in cell.panels.items():
        draw.text((left, 0), title, fill=_INK)
        canvas.paste(Image.fromarray(panel), (left, _LINE))
        left += panel.shape[1] + 2
    caption = cell.caption
    # What tells paths apart is at their end.
    while draw.textlength(caption) > width and len(caption) > 4:
        caption = "…" + caption[2:]
    draw.text((0, height + _LINE), caption, fill=_INK)
    return np.asarray(canvas)


def _row(pictures: Sequence[NDArray[np.uint8]], width: int, column: int) -> NDArray[np.uint8]:
    height = max(picture.shape[0] for picture in pictures)
    row = np.full((height + _GAP, width, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        left = _GAP + place * (column + _GAP)
        row[: picture.shape[0], left : left + picture.shape[1]] = picture
    return row
