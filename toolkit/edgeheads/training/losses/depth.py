"""Training losses, on `keras.ops`."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

__all__ = ["BEST_LOG_ERROR", "depth_loss"]

# The expected absolute log error at confidence 1; at 0 it is 1. See `DepthEstimationHead`.
BEST_LOG_ERROR = 0.01

_GRADIENT_SCALES = 4
_GRADIENT_WEIGHT = 0.5
_CONFIDENCE_WEIGHT = 0.1


def depth_loss(target: Any, depth: Any, confidence: Any | None = None) -> Any:
    """Return the mean loss of a batch of depth maps.

    The sum of the absolute error of log depth; of the same error's gradients at four scales,
    which keeps edges sharp and surfaces smooth (Li & Snavely 2018, MegaDepth, eq. 4); and, where
    there is a confidence, of the negative log likelihood of a Laplace distribution of that error
    whose scale is 0.01 ** confidence (Kendall & Gal 2017). The likelihood trains the confidence
    alone: it sees the depth error as a constant, so that the network cannot buy likelihood by
    ignoring hard pixels.

    Args:
        target: [B, H, W, 1] metres; 0 or less where there is no reading, which counts for nothing.
        depth: [B, H, W, 1] metres, above 0.
        confidence: [B, H, W, 1] in [0, 1], or None.
    """
    valid = ops.cast(target > 0, depth.dtype)
    error = (ops.log(depth) - ops.log(ops.where(target > 0, target, 1.0))) * valid
    loss = _masked_mean(ops.abs(error), valid) + _GRADIENT_WEIGHT * _gradient_loss(error, valid)
    if confidence is None:
        return loss
    log_scale = confidence * math.log(BEST_LOG_ERROR)
    surprise = ops.stop_gradient(ops.abs(error)) * ops.exp(-log_scale) + log_scale
    return loss + _CONFIDENCE_WEIGHT * _masked_mean(surprise, valid)


def _masked_mean(values: Any, mask: Any) -> Any:
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)


def _gradient_loss(error: Any, valid: Any) -> Any:
    total = 0.0
    for scale in range(_GRADIENT_SCALES):
        step = 2**scale
        e, v = error[:, ::step, ::step], valid[:, ::step, ::step]
        across = ops.abs(e[:, :, 1:] - e[:, :, :-1]), v[:, :, 1:] * v[:, :, :-1]
        down = ops.abs(e[:, 1:] - e[:, :-1]), v[:, 1:] * v[:, :-1]
        total = total + _masked_mean(*across) + _masked_mean(*down)
    return total / _GRADIENT_SCALES
