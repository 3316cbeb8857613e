"""Loss of boxes with masks, on `keras.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from edgeheads.training.losses.detection import cross_entropy, detection_loss

__all__ = ["instance_loss", "prototype_mask_loss"]

# Bolya et al. 2019, section 3, of the masks' loss against the classes'.
_MASK_WEIGHT = 6.125


def instance_loss(targets: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """Return the loss of a batch of boxes with masks: see the two it is the sum of."""
    masks = prototype_mask_loss(
        targets["masks"], targets["mask_anchors"], outputs["coefficients"], outputs["prototypes"]
    )
    return detection_loss(targets, outputs) + _MASK_WEIGHT * masks


def prototype_mask_loss(masks: Any, rows: Any, coefficients: Any, prototypes: Any) -> Any:
    """Return the mean cross-entropy of masks, each over the pixels around its box, so that small
    objects weigh as much as large ones (Bolya et al. 2019, "YOLACT", section 3).

    Args:
        masks: [B, M, h, w], 1 on the object, 0 beside it, below 0 where a pixel does not count;
            a mask of which none counts is left out.
        rows: [B, M], the anchor whose coefficients make each mask.
        coefficients: [B, A, P].
        prototypes: [B, h, w, P].
    """
    chosen = ops.take_along_axis(coefficients, rows[..., None], axis=1)
    height, width, depth = prototypes.shape[1:]
    flat = ops.reshape(prototypes, (-1, height * width, depth))
    logits = ops.matmul(chosen, ops.swapaxes(flat, 1, 2))
    truth = ops.reshape(ops.cast(masks, logits.dtype), (-1, masks.shape[1], height * width))
    counts = ops.cast(truth >= 0, logits.dtype)
    entropy = cross_entropy(ops.maximum(truth, 0.0), logits)
    pixels = ops.sum(counts, axis=-1)
    each = ops.sum(entropy * counts, axis=-1) / ops.maximum(pixels, 1.0)
    used = ops.cast(pixels > 0, logits.dtype)
    return ops.sum(each * used) / ops.maximum(ops.sum(used), 1.0)
