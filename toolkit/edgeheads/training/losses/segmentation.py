"""Losses of class maps, on `keras.ops`. Pixels of class `IGNORED` count for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from edgeheads.training.losses.masked import masked_mean

__all__ = ["DiceLoss", "PixelCrossEntropy", "cross_entropy", "dice_loss", "segmentation_loss"]


def segmentation_loss(
    target: Any, logits: Any, class_weights: Sequence[float] | None = None
) -> Any:
    """Return `cross_entropy` + `dice_loss`.

    The first judges every pixel, and makes probabilities; the second judges the overlap of each
    class whatever its area, and so what the mean IoU measures.
    """
    return cross_entropy(target, logits, class_weights) + dice_loss(target, logits)


def cross_entropy(target: Any, logits: Any, class_weights: Sequence[float] | None = None) -> Any:
    """Return the mean negative log likelihood of the labelled pixels of a batch.

    Args:
        target: [B, H, W] whole numbers, the class of each pixel; below 0 where nobody knows.
        logits: [B, H, W, K]; K = 1 is the logit of class 1 against class 0.
        class_weights: what a pixel of each class counts in the mean; None: the same.
    """
    truth, known = _one_hot(target, logits)
    cost = -ops.sum(truth * ops.log_softmax(_every_class(logits), axis=-1), axis=-1)
    if class_weights is not None:
        known = known * ops.sum(truth * ops.convert_to_tensor(class_weights, truth.dtype), axis=-1)
    return masked_mean(cost, known)


def dice_loss(target: Any, logits: Any) -> Any:
    """Return 1 - the Dice coefficient of each class (Milletari et al. 2016, V-Net), averaged.

    2 * sum(p * t) / (sum(p^2) + sum(t^2)) over the labelled pixels of the whole batch, p the
    probability and t the label, 0 or 1. A class that no pixel of the batch shows is left out of
    the mean; so is the background where K = 1.

    Args:
        target: [B, H, W] whole numbers, the class of each pixel; below 0 where nobody knows.
        logits: [B, H, W, K]; K = 1 is the logit of class 1 against class 0.
    """
    truth, known = _one_hot(target, logits)
    share = ops.softmax(_every_class(logits), axis=-1) * ops.expand_dims(known, -1)
    if logits.shape[-1] == 1:
        truth, share = truth[..., 1:], share[..., 1:]
    overlap = ops.sum(share * truth, axis=(0, 1, 2))
    area = ops.sum(truth, axis=(0, 1, 2))
    # Where there are pixels, the denominator is at least 1.
    dice = 2 * overlap / ops.maximum(ops.sum(ops.square(share), axis=(0, 1, 2)) + area, 1.0)
    return masked_mean(1 - dice, ops.cast(area > 0, dice.dtype))


@keras.saving.register_keras_serializable(package="edgeheads")
class PixelCrossEntropy(keras.losses.Loss):
    """`cross_entropy` for `keras.Model.compile`.

    Args:
        class_weights: what a pixel of each class counts in the mean; None: the same.
        name: of the loss.
        **options: see `keras.losses.Loss`.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        name: str = "pixel_cross_entropy",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the scalar loss."""
        return cross_entropy(y_true, y_pred, self.class_weights)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal loss."""
        return {**super().get_config(), "class_weights": self.class_weights}


@keras.saving.register_keras_serializable(package="edgeheads")
class DiceLoss(keras.losses.Loss):
    """`dice_loss` for `keras.Model.compile`.

    Args:
        name: of the loss.
        **options: see `keras.losses.Loss`.
    """

    def __init__(self, name: str = "dice_loss", **options: Any) -> None:
        super().__init__(name=name, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the scalar loss."""
        return dice_loss(y_true, y_pred)


def _every_class(logits: Any) -> Any:
    """Return the logits of at least two classes: sigmoid(x) is the softmax of (0, x)."""
    if logits.shape[-1] > 1:
        return logits
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1)


def _one_hot(target: Any, logits: Any) -> tuple[Any, Any]:
    """Return the labels [B, H, W, classes], all zero where unknown, and 1 where known."""
    # A Keras loss hands the labels over as real numbers.
    target = ops.cast(target, "int32")
    known = ops.cast(target >= 0, logits.dtype)
    truth = ops.one_hot(
        ops.maximum(target, 0), max(2, logits.shape[-1]), axis=-1, dtype=logits.dtype
    )
    return truth * ops.expand_dims(known, -1), known
