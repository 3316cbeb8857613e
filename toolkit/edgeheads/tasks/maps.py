"""Maps that a network predicts, brought to the size of an image; NumPy only."""

from __future__ import annotations

import numpy as np

from edgeheads.tasks.base import Array

__all__ = ["resize_bilinear"]


def resize_bilinear(values: Array, size: tuple[int, ...]) -> Array:
    """Return a map [h, w, ...] at (height, width), pixel centres aligned, edges repeated."""
    for axis, length in enumerate(size):
        if values.shape[axis] == length:
            continue
        at = (np.arange(length) + 0.5) * values.shape[axis] / length - 0.5
        at = np.clip(at, 0, values.shape[axis] - 1)
        low = np.floor(at).astype(np.intp)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (at - low).astype(np.float32)
        share = share.reshape(-1, *[1] * (values.ndim - axis - 1))
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
