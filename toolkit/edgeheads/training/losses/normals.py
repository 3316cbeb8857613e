"""Losses of surface normals, on `keras.ops`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.training.losses.masked import masked_mean

__all__ = ["CosineNormalsLoss", "normals_loss"]


def normals_loss(target: Any, normals: Any) -> Any:
    """Return the mean of 1 - cosine over the pixels of a batch that have a normal.

    It is the dot product loss of Eigen & Fergus 2015, "Predicting Depth, Surface Normals and
    Semantic Labels with a Common Multi-Scale Convolutional Architecture", section 4.2, made 0
    where the two agree.

    Args:
        target: [B, H, W, 3] unit vectors; all zero where undefined, which counts for nothing.
        normals: [B, H, W, 3] unit vectors.
    """
    defined = ops.cast(ops.any(ops.not_equal(target, 0), axis=-1), normals.dtype)
    return masked_mean(1 - ops.sum(target * normals, axis=-1), defined)


@keras.saving.register_keras_serializable(package="edgeheads")
class CosineNormalsLoss(keras.losses.Loss):
    """`normals_loss` for `keras.Model.compile`.

    Args:
        name: of the loss.
        **options: see `keras.losses.Loss`.
    """

    def __init__(self, name: str = "cosine_normals_loss", **options: Any) -> None:
        super().__init__(name=name, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the batch's loss."""
        return normals_loss(y_true, y_pred)
