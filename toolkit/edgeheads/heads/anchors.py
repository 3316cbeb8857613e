"""The boxes a detector starts from. NumPy only, so that a device computes the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError

__all__ = [
    "ANCHOR_RATIOS",
    "ANCHOR_SCALES",
    "AnchorGenerator",
    "AnchorLayout",
    "check_anchor_count",
]

# Three sizes within an octave, three shapes (Lin et al. 2017, RetinaNet).
ANCHOR_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ANCHOR_RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class AnchorGenerator:
    """Anchors at every cell of every level, in the order of a detection head's outputs.

    Levels fine to coarse, then rows, then columns, then scales, then ratios.

    Attributes:
        scales: sizes in one cell, in multiples of `cells`.
        ratios: heights divided by widths, at equal area.
        cells: the side of the square anchor of scale 1, in cells of its level.
    """

    scales: tuple[float, ...] = ANCHOR_SCALES
    ratios: tuple[float, ...] = ANCHOR_RATIOS
    cells: float = 4.0

    def __post_init__(self) -> None:
        values = (*self.scales, *self.ratios, self.cells)
        if not self.scales or not self.ratios or min(values) <= 0:
            raise EdgeheadsError(
                "anchors need scales, ratios and cells above 0, "
                f"received scales {self.scales}, ratios {self.ratios}, cells {self.cells}"
            )

    @property
    def per_cell(self) -> int:
        """Anchors in one cell."""
        return len(self.scales) * len(self.ratios)

    def count(self, grids: Sequence[tuple[int, int]]) -> int:
        """Return A, the number of anchors on all levels."""
        return sum(rows * columns for rows, columns in grids) * self.per_cell

    def boxes(self, grids: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Return the anchors [A, 4] of an image, as x_min, y_min, x_max, y_max.

        They are in fractions of the image's width and height, and may reach beyond [0, 1].

        Args:
            grids: (rows, columns) of each level, fine to coarse.
        """
        shapes = [
            (scale * self.cells / np.sqrt(ratio), scale * self.cells * np.sqrt(ratio))
            for scale in self.scales
            for ratio in self.ratios
        ]
        levels = []
        for rows, columns in grids:
            y, x = np.mgrid[:rows, :columns] + 0.5
            centers = np.stack([x, y], axis=-1)[:, :, None]
            half = np.asarray(shapes) / 2
            corners = np.concatenate([centers - half, centers + half], axis=-1)
            levels.append(corners.reshape(-1, 4) / (columns, rows, columns, rows))
        return np.concatenate(levels).astype(np.float32)


@dataclass(frozen=True)
class AnchorLayout:
    """All anchors of one network: what is in a cell, and the cells there are.

    Attributes:
        generator: of the anchors in a cell.
        grids: (rows, columns) of each level, fine to coarse.
    """

    generator: AnchorGenerator
    grids: tuple[tuple[int, int], ...]

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """The anchors [A, 4], see `AnchorGenerator.boxes`; not to be written to."""
        boxes = self.generator.boxes(self.grids)
        boxes.setflags(write=False)
        return boxes

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: scales, ratios, cells, grids."""
        return {
            "scales": list(self.generator.scales),
            "ratios": list(self.generator.ratios),
            "cells": self.generator.cells,
            "grids": [list(grid) for grid in self.grids],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AnchorLayout:
        """Return what `to_json` wrote; the boxes of equal layouts are computed once."""
        return _layout(
            tuple(content["scales"]),
            tuple(content["ratios"]),
            content["cells"],
            tuple((rows, columns) for rows, columns in content["grids"]),
        )


@lru_cache(maxsize=8)
def _layout(
    scales: tuple[float, ...],
    ratios: tuple[float, ...],
    cells: float,
    grids: tuple[tuple[int, int], ...],
) -> AnchorLayout:
    return AnchorLayout(AnchorGenerator(scales, ratios, cells), grids)


def check_anchor_count(expected: int, received: int, what: str) -> None:
    """Refuse predictions that are not one per anchor.

    Args:
        expected: anchors that were generated.
        received: predictions there are.
        what: they are called, for the text.

    Raises:
        EdgeheadsError: the two differ.
    """
    if expected != received:
        raise EdgeheadsError(
            f"{what} has {received} rows for {expected} anchors; generate the anchors with the "
            "scales and ratios of the head and the grids of its levels: "
            "head.anchors.boxes([(rows, columns), ...])"
        )
