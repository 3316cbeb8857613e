"""Losses of depth maps, on `keras.ops`."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from edgeheads.errors import EdgeheadsError
from edgeheads.training.losses.masked import masked_mean

__all__ = ["BEST_LOG_ERROR", "ScaleInvariantLogLoss", "depth_loss"]

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
    error, valid = _log_error(target, depth)
    loss = masked_mean(ops.abs(error), valid) + _GRADIENT_WEIGHT * _gradient_loss(error, valid)
    if confidence is None:
        return loss
    log_scale = confidence * math.log(BEST_LOG_ERROR)
    surprise = ops.stop_gradient(ops.abs(error)) * ops.exp(-log_scale) + log_scale
    return loss + _CONFIDENCE_WEIGHT * masked_mean(surprise, valid)


@keras.saving.register_keras_serializable(package="edgeheads")
class ScaleInvariantLogLoss(keras.losses.Loss):
    """The scale-invariant error of log depth (Eigen et al. 2014, eq. 4), of each image.

    mean(d^2) - scale_invariance * mean(d)^2, with d the log error of each pixel that has a
    reading. An image without a reading costs nothing.

    Args:
        scale_invariance: in [0, 1]: 0 is the squared log error; at 1, an error that is one factor
            for the whole image costs nothing, and nothing teaches the network metres.
        name: of the loss.
        **options: see `keras.losses.Loss`.

    Takes depth in metres twice, [B, H, W, 1]: the label, 0 or less where there is no reading, and
    the prediction, above 0.
    """

    def __init__(
        self,
        scale_invariance: float = 0.5,
        name: str = "scale_invariant_log_loss",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        if not 0 <= scale_invariance <= 1:
            raise EdgeheadsError(
                "ScaleInvariantLogLoss: scale_invariance must be in [0, 1], "
                f"received {scale_invariance!r}; the paper takes 0.5"
            )
        self.scale_invariance = scale_invariance

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss [B] of each image."""
        error, valid = _log_error(y_true, y_pred)
        readings = ops.maximum(ops.sum(valid, axis=(1, 2, 3)), 1.0)
        mean = ops.sum(error, axis=(1, 2, 3)) / readings
        mean_of_squares = ops.sum(ops.square(error), axis=(1, 2, 3)) / readings
        return mean_of_squares - self.scale_invariance * ops.square(mean)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal loss."""
        return {**super().get_config(), "scale_invariance": self.scale_invariance}


def _log_error(target: Any, depth: Any) -> tuple[Any, Any]:
    """Return the error of log depth, 0 where there is no reading, and 1 where there is one."""
    valid = ops.cast(target > 0, depth.dtype)
    return (ops.log(depth) - ops.log(ops.where(target > 0, target, 1.0))) * valid, valid


def _gradient_loss(error: Any, valid: Any) -> Any:
    total = 0.0
    for scale in range(_GRADIENT_SCALES):
        step = 2**scale
        e, v = error[:, ::step, ::step], valid[:, ::step, ::step]
        across = ops.abs(e[:, :, 1:] - e[:, :, :-1]), v[:, :, 1:] * v[:, :, :-1]
        down = ops.abs(e[:, 1:] - e[:, :-1]), v[:, 1:] * v[:, :-1]
        total = total + masked_mean(*across) + masked_mean(*down)
    return total / _GRADIENT_SCALES
