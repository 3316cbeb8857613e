"""Instance masks from prototypes and coefficients (Bolya et al. 2019, "YOLACT").

NumPy only; `box_masks` takes the module that computes, so that the head's graph and a device run
the same lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_masks", "paste_masks"]

Floats = NDArray[np.float32]


def box_masks(
    prototypes: Any, coefficients: Any, boxes: Any, size: tuple[int, int], ops: Any = np
) -> Any:
    """Return the mask logits [..., N, rows, columns] of N boxes, each in the frame of its box.

    A mask is the sum of the prototypes, weighted by the coefficients, read bilinearly at the
    centres of rows x columns cells that tile the box. Reading a grid is separable: one matrix
    product for the rows and one for the columns.

    Args:
        prototypes: [..., h, w, P], over the whole image.
        coefficients: [..., N, P].
        boxes: [..., N, 4] in fractions of the image.
        size: (rows, columns).
        ops: numpy, or keras.ops inside a graph.
    """
    height, width = prototypes.shape[-3], prototypes.shape[-2]
    # [..., N, 1, 1, P] x [..., 1, h, P, w] -> [..., N, h, 1, w]
    spread = ops.swapaxes(prototypes, -1, -2)[..., None, :, :, :]
    masks = ops.matmul(coefficients[..., :, None, None, :], spread)[..., 0, :]
    rows = _reading_weights(boxes[..., 1], boxes[..., 3], size[0], height, ops)
    columns = _reading_weights(boxes[..., 0], boxes[..., 2], size[1], width, ops)
    return ops.matmul(ops.matmul(rows, masks), ops.swapaxes(columns, -1, -2))


def _reading_weights(low: Any, high: Any, count: int, length: int, ops: Any) -> Any:
    """Bilinear weights [..., count, length] of `count` points between `low` and `high` [...]."""
    share = (np.arange(count, dtype=np.float32) + 0.5) / count
    at = low[..., None] + (high - low)[..., None] * share
    at = ops.clip(at * length - 0.5, 0, length - 1)
    distance = ops.abs(at[..., None] - np.arange(length, dtype=np.float32))
    return ops.maximum(1.0 - distance, 0.0)


def paste_masks(masks: Floats, boxes: Floats, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return masks [N, H, W] over the image of masks [N, rows, columns] over their boxes.

    Args:
        masks: logits, as `box_masks` returns them; a pixel belongs to the object above 0.
        boxes: [N, 4] in fractions of the image.
        image_size: (height, width) in pixels.
    """
    pasted = np.zeros((len(masks), *image_size), bool)
    for mask, (left, top, right, bottom), whole in zip(masks, boxes, pasted, strict=True):
        rows = _inside(top, bottom, image_size[0])
        columns = _inside(left, right, image_size[1])
        if rows.size and columns.size:
            down = _bilinear(rows, top, bottom, image_size[0], mask.shape[0])
            across = _bilinear(columns, left, right, image_size[1], mask.shape[1])
            whole[np.ix_(rows, columns)] = down @ mask @ across.T > 0
    return pasted


def _inside(low: float, high: float, length: int) -> NDArray[np.intp]:
    """The pixels whose centres lie between two fractions of an image side."""
    centers = (np.arange(length) + 0.5) / length
    return np.flatnonzero((centers >= low) & (centers < high))


def _bilinear(pixels: NDArray[np.intp], low: float, high: float, length: int, cells: int) -> Floats:
    """Weights [pixels, cells] that read a box's cells at the centres of pixels."""
    at = ((pixels + 0.5) / length - low) / max(high - low, 1e-12) * cells - 0.5
    distance = np.abs(np.clip(at, 0, cells - 1)[:, None] - np.arange(cells))
    weights: Floats = np.maximum(1 - distance, 0).astype(np.float32)
    return weights
