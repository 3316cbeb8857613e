"""Boxes: their code relative to anchors, overlap, and the choice among many.

A box is x_min, y_min, x_max, y_max, in fractions of the image's width and height. NumPy only; the
functions that a graph needs as well take the module that computes (`numpy` or `keras.ops`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.heads.anchors import check_anchor_count

__all__ = [
    "Detections",
    "decode_boxes",
    "decode_detections",
    "encode_boxes",
    "intersection",
    "iou",
    "nms",
    "paired_iou",
]

Floats = NDArray[np.float32]

# What one unit of a regression means, in anchor sizes: it brings the regressions to about unit
# variance (Liu et al. 2016, SSD).
_CENTER_STEP = 0.1
_SIZE_STEP = 0.2
# exp() of an untrained regression must not overflow: no box is over 1000/16 times its anchor.
_MAX_LOG_SIZE = math.log(1000 / 16)


def encode_boxes(boxes: Floats, anchors: Floats) -> Floats:
    """Return the regressions [..., 4] that make boxes [..., 4] of anchors [..., 4]
    (Girshick et al. 2014, R-CNN; in steps of 0.1 for centres and 0.2 for log sizes).
    """
    box_size, anchor_size = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    shift = (boxes[..., :2] + boxes[..., 2:] - anchors[..., :2] - anchors[..., 2:]) / 2
    growth = np.log(np.maximum(box_size, 1e-6) / anchor_size)
    return np.concatenate([shift / anchor_size / _CENTER_STEP, growth / _SIZE_STEP], axis=-1)


def decode_boxes(regressions: Any, anchors: Any, ops: Any = np) -> Any:
    """Return the boxes [..., 4] of regressions [..., 4] on anchors [..., 4].

    Args:
        regressions: dx, dy, d log w, d log h, as `encode_boxes` returns them.
        anchors: as `AnchorGenerator.boxes` returns them.
        ops: numpy, or keras.ops inside a graph.
    """
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    center = (anchors[..., :2] + anchors[..., 2:]) / 2
    center = center + regressions[..., :2] * _CENTER_STEP * anchor_size
    growth = ops.minimum(regressions[..., 2:] * _SIZE_STEP, _MAX_LOG_SIZE)
    half = anchor_size * ops.exp(growth) / 2
    return ops.concatenate([center - half, center + half], axis=-1)


def iou(boxes: Floats, others: Floats) -> Floats:
    """Return the intersection over union [N, M] of boxes [N, 4] and others [M, 4]."""
    return paired_iou(boxes[:, None], others[None])


def paired_iou(boxes: Floats, others: Floats) -> Floats:
    """Return the intersection over union [...] of boxes [..., 4], each with its own other
    [..., 4]; the two are broadcast against each other.
    """
    common = intersection(boxes, others)
    union = _area(boxes) + _area(others) - common
    return np.where(union > 0, common / np.maximum(union, 1e-12), 0.0).astype(np.float32)


def intersection(boxes: Floats, others: Floats) -> Floats:
    """Return the area [...] that boxes [..., 4] and others [..., 4] share, broadcast likewise."""
    width = np.minimum(boxes[..., 2], others[..., 2]) - np.maximum(boxes[..., 0], others[..., 0])
    height = np.minimum(boxes[..., 3], others[..., 3]) - np.maximum(boxes[..., 1], others[..., 1])
    shared: Floats = np.maximum(width, 0) * np.maximum(height, 0)
    return shared


def _area(boxes: Floats) -> Floats:
    return intersection(boxes, boxes)


def nms(boxes: Floats, scores: Floats, iou_threshold: float, limit: int) -> NDArray[np.intp]:
    """Return the indices of at most `limit` boxes, best first, none of which overlaps a better one
    by more than `iou_threshold` (greedy non-maximum suppression).

    Args:
        boxes: [N, 4].
        scores: [N].
        iou_threshold: in [0, 1].
        limit: how many to keep.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size and len(kept) < limit:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= iou_threshold]
    return np.asarray(kept, np.intp)


@dataclass(frozen=True)
class Detections:
    """Found objects, best first.

    Attributes:
        boxes: [N, 4] float32, inside [0, 1].
        scores: [N] float32 in [0, 1].
        classes: [N] int64.
        anchors: [N] int64, the row of the head's outputs that each came from: where its mask
            coefficients are.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    anchors: NDArray[np.int64]


def decode_detections(
    classifications: Floats,
    regressions: Floats,
    anchors: Floats,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    limit: int = 100,
    candidates: int = 1000,
) -> Detections:
    """Return the objects in one image: scores by sigmoid, class-wise non-maximum suppression.

    Args:
        classifications: [A, K] logits.
        regressions: [A, 4].
        anchors: [A, 4].
        score_threshold: in [0, 1]; lower scores are dropped.
        iou_threshold: in [0, 1]; of two boxes of one class that overlap more, the better is kept.
        limit: how many objects to return at most, over all classes.
        candidates: how many of the best scores of one class enter the suppression.

    Raises:
        EdgeheadsError: the outputs do not have one row for each anchor.
    """
    check_anchor_count(len(anchors), len(classifications), "classifications")
    check_anchor_count(len(anchors), len(regressions), "regressions")
    boxes = np.clip(decode_boxes(regressions, anchors), 0, 1).astype(np.float32)
    # tanh never overflows, where exp(-logit) does.
    scores = (0.5 + 0.5 * np.tanh(0.5 * classifications)).astype(np.float32)
    found: list[tuple[NDArray[np.intp], int]] = []
    for label in range(scores.shape[1]):
        rows = np.flatnonzero(scores[:, label] >= score_threshold)
        rows = rows[np.argsort(-scores[rows, label], kind="stable")[:candidates]]
        found.append((rows[nms(boxes[rows], scores[rows, label], iou_threshold, limit)], label))
    index = np.concatenate([rows for rows, _ in found]).astype(np.int64)
    labels = np.concatenate([np.full(len(rows), label) for rows, label in found]).astype(np.int64)
    best = np.argsort(-scores[index, labels], kind="stable")[:limit]
    index, labels = index[best], labels[best]
    return Detections(boxes[index], scores[index, labels], labels, index)
