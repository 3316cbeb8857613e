"""Losses of heatmaps and offsets, on `keras.ops`.

A keypoint is labelled where its visibility is 1 or 2. The heatmap of one that is not counts for
nothing, since it may well be in the image; that of one labelled outside of the image is to be
empty, since it is known not to be there.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from edgeheads.training.losses.masked import masked_mean

__all__ = [
    "HeatmapFocalLoss",
    "cell_cross_entropy",
    "cell_offsets",
    "heatmap_focal_loss",
    "heatmaps",
    "keypoint_loss",
]

# Of the Gaussian around a keypoint, in heatmap cells.
_SIGMA = 1.0
# Offsets are learned as far from the keypoint's cell: the highest cell may be a neighbour of it.
_REACH = 2.0


def keypoint_loss(keypoints: Any, logits: Any, offsets: Any) -> Any:
    """Return what keypoints of which an image has one each are learned by.

    The sum of `cell_cross_entropy`, which says which cell it is; of `heatmap_focal_loss`, which
    makes the logit there a score; and of the smooth L1 loss of the offsets near the keypoints.

    Args:
        keypoints: [B, K, 3]: x and y in fractions of the image, and how the keypoint is seen: 0
            not labelled, 1 hidden, 2 visible.
        logits: [B, h, w, K], of heatmaps.
        offsets: [B, h, w, 2K] in cells, from a cell's centre to the keypoint, channel 2k for x
            and 2k + 1 for y of keypoint k.
    """
    height, width = logits.shape[1:3]
    shifts, near = cell_offsets(keypoints, (height, width))
    error = ops.abs(ops.reshape(offsets, ops.shape(shifts)) - shifts)
    smooth = ops.where(error < 1, 0.5 * ops.square(error), error - 0.5)
    offset_loss = masked_mean(ops.sum(smooth, axis=-1), near)
    target = heatmaps(keypoints, (height, width))
    return cell_cross_entropy(target, logits) + heatmap_focal_loss(target, logits) + offset_loss


def heatmaps(keypoints: Any, size: tuple[int, int]) -> Any:
    """Return the heatmaps [B, h, w, K] to learn: 1 in a keypoint's cell, a Gaussian around it.

    Those of keypoints that are not labelled are -1; those of keypoints outside are 0.

    Args:
        keypoints: [B, K, 3], see `keypoint_loss`.
        size: (h, w).
    """
    # Around the cell's centre and not the keypoint, so that there is a cell with exactly 1.
    _, distance, labelled, inside = _seen_from_cells(keypoints, size)
    return ops.where(labelled, ops.exp(-distance / (2 * _SIGMA**2)) * inside, -1.0)


def cell_offsets(keypoints: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """Return the offsets [B, h, w, K, 2] from each cell's centre to the keypoints, in cells, and
    which of them are to be learned [B, h, w, K]: 1 where a labelled keypoint's cell is near.

    Args:
        keypoints: [B, K, 3], see `keypoint_loss`.
        size: (h, w).
    """
    shifts, distance, labelled, inside = _seen_from_cells(keypoints, size)
    near = ops.logical_and(labelled, distance <= _REACH**2)
    return shifts, ops.cast(near, inside.dtype) * inside


def heatmap_focal_loss(target: Any, logits: Any) -> Any:
    """Return the penalty-reduced focal loss of a batch of heatmaps, a mean over keypoints.

    Law & Deng 2018, CornerNet, eq. 1, with alpha 2 and beta 4: of a cell with target 1,
    -(1 - p)^2 log(p); of another, -(1 - target)^4 p^2 log(1 - p); p the sigmoid of the logit.

    Args:
        target: [B, h, w, K] in [0, 1], see `heatmaps`; below 0 counts for nothing.
        logits: [B, h, w, K].
    """
    probability = ops.sigmoid(logits)
    peak = ops.cast(target >= 1, logits.dtype)
    rest = ops.where(target < 0, 0.0, 1 - target) ** 4
    # softplus(-x) is -log(sigmoid(x)), finite for every logit.
    found = ops.square(1 - probability) * ops.softplus(-logits) * peak
    empty = ops.square(probability) * ops.softplus(logits) * rest
    return ops.sum(found + empty) / ops.maximum(ops.sum(peak), 1.0)


def cell_cross_entropy(target: Any, logits: Any) -> Any:
    """Return the cross-entropy of a softmax over the cells of a heatmap, a mean over keypoints.

    He et al. 2017, Mask R-CNN, section 5, with the heatmap, its sum made 1, in place of one cell.

    Args:
        target: [B, h, w, K], see `heatmaps`; one that is nowhere 1 counts for nothing.
        logits: [B, h, w, K].
    """
    _, height, width, count = logits.shape
    target = ops.reshape(target, (-1, height * width, count))
    placed = ops.cast(ops.max(target, axis=1) >= 1, logits.dtype)
    share = ops.maximum(target, 0.0) / ops.maximum(ops.sum(target, axis=1, keepdims=True), 1.0)
    log_softmax = ops.log_softmax(ops.reshape(logits, (-1, height * width, count)), axis=1)
    return masked_mean(-ops.sum(share * log_softmax, axis=1), placed)


@keras.saving.register_keras_serializable(package="edgeheads")
class HeatmapFocalLoss(keras.losses.Loss):
    """`heatmap_focal_loss` for `keras.Model.compile`.

    Args:
        name: of the loss.
        **options: see `keras.losses.Loss`.
    """

    def __init__(self, name: str = "heatmap_focal_loss", **options: Any) -> None:
        super().__init__(name=name, **options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the scalar loss."""
        return heatmap_focal_loss(y_true, y_pred)


def _seen_from_cells(keypoints: Any, size: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return where the keypoints are for each cell of a map (h, w).

    Returns:
        The shift [B, h, w, K, 2] from the cell's centre in cells, the squared distance
        [B, h, w, K] between the cell and the keypoint's, whether it is labelled [B, 1, 1, K], and
        1 where it is inside the image [B, 1, 1, K].
    """
    height, width = size
    points = ops.expand_dims(keypoints[..., :2], (1, 2)) * ops.convert_to_tensor(
        [width, height], keypoints.dtype
    )
    rows, columns = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
    cells = ops.cast(ops.stack([columns, rows], axis=-1), keypoints.dtype)[None, :, :, None]
    # A point on the right or lower edge belongs to the last cell.
    last = ops.convert_to_tensor([width - 1, height - 1], keypoints.dtype)
    distance = ops.sum(ops.square(ops.minimum(ops.floor(points), last) - cells), axis=-1)
    state = ops.expand_dims(keypoints[..., 2], (1, 2))
    fractions = ops.expand_dims(keypoints[..., :2], (1, 2))
    inside = ops.all(ops.logical_and(fractions >= 0, fractions <= 1), axis=-1)
    return points - cells - 0.5, distance, state > 0, ops.cast(inside, keypoints.dtype)
