"""Means over those values that have a label."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["masked_mean"]


def masked_mean(values: Any, mask: Any) -> Any:
    """Return the mean of values weighted by a mask of the same shape; 0 where it is 0 throughout.

    Args:
        values: finite also where the mask is 0.
        mask: weights, at least 0.
    """
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1e-6)
