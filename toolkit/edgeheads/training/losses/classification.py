"""Losses of class scores, on `keras.ops`. An image of a class below 0 counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from edgeheads.errors import EdgeheadsError
from edgeheads.training.losses.masked import masked_mean

__all__ = ["SmoothedCrossEntropy", "classification_loss", "compute_class_weights"]


def compute_class_weights(counts: ArrayLike) -> list[float]:
    """Return a weight for each class that makes all of them count alike in a weighted mean.

    The weight is inverse to how often the class occurs, n / (K * n_k): 1 for each of K classes
    that occur equally often, and 1 in the mean over the samples always. A class that does not
    occur has weight 0, for it has nothing to weigh.

    Args:
        counts: [K] how often each class occurs, at least 0.

    Raises:
        EdgeheadsError: not one class occurs.
    """
    occurs = np.asarray(counts, np.float64)
    if occurs.ndim != 1 or (occurs < 0).any() or not occurs.any():
        raise EdgeheadsError(
            "counts must be how often each class occurs, a list of numbers of which none is "
            f"below 0 and one is above, received {occurs.tolist()}"
        )
    present = occurs > 0
    shares = np.where(present, occurs, 1) / occurs.sum()
    weights: list[float] = np.where(present, 1 / (present.sum() * shares), 0).tolist()
    return weights


def classification_loss(
    target: Any,
    logits: Any,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Any:
    """Return the mean cross-entropy of a batch, in nats.

    Args:
        target: [B] whole numbers, the class of each image; below 0 where nobody knows.
        logits: [B, K].
        class_weights: [K] what an image of each class counts in the mean; None: the same.
        label_smoothing: in [0, 1), the share of each label that is spread evenly over all
            classes, which keeps the network from being sure of everything (Szegedy et al. 2016,
            "Rethinking the Inception Architecture", section 7).
    """
    known = ops.cast(ops.greater_equal(target, 0), logits.dtype)
    # `one_hot` of a class below 0 is all zero on one backend and the last class on another.
    classes = ops.maximum(ops.cast(target, "int32"), 0)
    truth = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    if class_weights is not None:
        weights = ops.convert_to_tensor(class_weights, logits.dtype)
        known = known * ops.sum(truth * weights, axis=-1)
    smooth = truth * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return masked_mean(-ops.sum(smooth * ops.log_softmax(logits, axis=-1), axis=-1), known)


@keras.saving.register_keras_serializable(package="edgeheads")
class SmoothedCrossEntropy(keras.losses.Loss):
    """`classification_loss` for `keras.Model.compile`.

    Args:
        class_weights: what an image of each class counts in the mean; None: the same.
        label_smoothing: in [0, 1), see `classification_loss`.
        name: of the loss.
        **options: see `keras.losses.Loss`.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.1,
        name: str = "smoothed_cross_entropy",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        if not 0 <= label_smoothing < 1:
            raise EdgeheadsError(
                "SmoothedCrossEntropy: label_smoothing must be in [0, 1), "
                f"received {label_smoothing!r}; the paper takes 0.1"
            )
        self.class_weights = None if class_weights is None else list(class_weights)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the batch's loss."""
        return classification_loss(y_true, y_pred, self.class_weights, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal loss."""
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
        }
