"""Losses of boxes with classes, on `keras.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from edgeheads.heads.boxes import decode_boxes
from edgeheads.training.matching import IGNORED

__all__ = ["FocalLoss", "GeneralizedIoULoss", "cross_entropy", "detection_loss"]

# Of the boxes' loss against the classes' (Zhang et al. 2020, section 4).
_BOX_WEIGHT = 2.0

# IoU is a ratio of areas, which scaling an axis does not change: it is the same in the frame of
# the anchor, where the anchor is this box, as in the image.
_UNIT_ANCHOR = np.array([0, 0, 1, 1], np.float32)


@keras.saving.register_keras_serializable(package="edgeheads")
class FocalLoss(keras.losses.Loss):
    """Sigmoid cross-entropy in which easy examples weigh little (Lin et al. 2017).

    y_true: [..., K], 1 for the class of an example and 0 elsewhere. y_pred: [..., K] logits. The
    loss of an example is the sum over its classes.

    Args:
        alpha: weight of a class that is there; 1 - alpha of one that is not.
        gamma: how fast the weight falls as the prediction comes near the truth.
        **kwargs: see `keras.losses.Loss`.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**{"name": "focal_loss", **kwargs})
        self.alpha = alpha
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss [...] of each example."""
        entropy = cross_entropy(y_true, y_pred)
        probability = ops.sigmoid(y_pred)
        error = y_true * (1 - probability) + (1 - y_true) * probability
        weight = y_true * self.alpha + (1 - y_true) * (1 - self.alpha)
        return ops.sum(weight * error**self.gamma * entropy, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal loss."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="edgeheads")
class GeneralizedIoULoss(keras.losses.Loss):
    """1 - GIoU of two boxes on one anchor (Rezatofighi et al. 2019), in [0, 2].

    y_true, y_pred: [..., 4] regressions, see `boxes.encode_boxes`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"name": "generalized_iou_loss", **kwargs})

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss [...] of each box."""
        truth = decode_boxes(y_true, _UNIT_ANCHOR, ops)
        found = decode_boxes(y_pred, _UNIT_ANCHOR, ops)
        common = _area(
            ops.maximum(truth[..., :2], found[..., :2]), ops.minimum(truth[..., 2:], found[..., 2:])
        )
        around = _area(
            ops.minimum(truth[..., :2], found[..., :2]), ops.maximum(truth[..., 2:], found[..., 2:])
        )
        union = (
            _area(truth[..., :2], truth[..., 2:]) + _area(found[..., :2], found[..., 2:]) - common
        )
        epsilon = keras.config.epsilon()
        return 2 - common / (union + epsilon) - union / (around + epsilon)


def detection_loss(targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Return the loss of a batch: focal over all anchors that count, GIoU over those with an
    object, both divided by the number of the latter.

    Args:
        targets: classes [B, A], or `NOTHING` or `IGNORED`; regressions [B, A, 4].
        outputs: classifications [B, A, K] logits; regressions [B, A, 4].
    """
    logits, regressions = outputs["classifications"], outputs["regressions"]
    classes = targets["classes"]
    positive = ops.cast(classes >= 0, logits.dtype)
    counts = ops.cast(ops.not_equal(classes, IGNORED), logits.dtype)
    objects = ops.maximum(ops.sum(positive), 1.0)
    truth = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    focal = FocalLoss(reduction="sum")(truth, logits, sample_weight=counts)
    boxes = GeneralizedIoULoss(reduction="sum")(
        targets["regressions"], regressions, sample_weight=positive
    )
    return (focal + _BOX_WEIGHT * boxes) / objects


def cross_entropy(truth: Any, logits: Any) -> Any:
    """Return the sigmoid cross-entropy of each logit with its truth in [0, 1].

    Keras' own goes through the clipped sigmoid on some backends, and loses its gradient there.
    """
    return ops.softplus(logits) - truth * logits


def _area(low: Any, high: Any) -> Any:
    size = ops.maximum(high - low, 0.0)
    return size[..., 0] * size[..., 1]
