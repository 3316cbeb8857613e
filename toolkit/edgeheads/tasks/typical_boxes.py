"""The trivial detector: where objects usually are, whatever the image shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["typical_boxes"]

_PER_CLASS = 10
_ROUNDS = 25


def typical_boxes(
    boxes: NDArray[np.float32], classes: NDArray[np.int32], images: int
) -> dict[str, Any]:
    """Return the centres of up to ten clusters of each class's boxes, as plain JSON values.

    The score of a cluster is how many objects of it there are per image, at most 1.

    Args:
        boxes: [N, 4] in fractions of the image.
        classes: [N].
        images: how many images the boxes are of.

    Returns:
        {"boxes": [[x_min, y_min, x_max, y_max], ...], "scores": [...], "classes": [...]}.
    """
    typical: list[list[float]] = []
    scores: list[float] = []
    labels: list[int] = []
    for label in np.unique(classes).tolist():
        centers, members = _cluster(boxes[classes == label].astype(np.float64))
        typical += centers.tolist()
        scores += np.minimum(members / images, 1.0).tolist()
        labels += [label] * len(centers)
    return {"boxes": typical, "scores": scores, "classes": labels}


def _cluster(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the means [k, D] of clusters of points [N, D], and how many are in each [k].

    Lloyd's algorithm, from points that are each the farthest from those before.
    """
    centers = points.mean(axis=0, keepdims=True)
    for _ in range(min(_PER_CLASS, len(np.unique(points, axis=0))) - 1):
        farthest = _distances(points, centers).min(axis=1).argmax()
        centers = np.concatenate([centers, points[farthest : farthest + 1]])
    for _ in range(_ROUNDS):
        nearest = _distances(points, centers).argmin(axis=1)
        used = np.unique(nearest)
        centers = np.stack([points[nearest == index].mean(axis=0) for index in used])
    nearest = _distances(points, centers).argmin(axis=1)
    return centers, np.bincount(nearest, minlength=len(centers))


def _distances(points: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared, [N, k]."""
    squared: NDArray[np.float64] = ((points[:, None] - centers[None]) ** 2).sum(axis=-1)
    return squared
