"""Augmentations that move what is in the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.augment.warp import Window, warp
from edgeheads.data.sample import LabelNames, Objects, Sample

__all__ = ["flip", "mirror", "rotate", "scale_crop"]

_Scalar = TypeVar("_Scalar", bound=np.generic)

# The picture is enlarged by a factor between these, and one side against the other by as much as
# the third.
_LEAST_ZOOM, _MOST_ZOOM = 0.75, 1.5
_MOST_STRETCH = 1.15
_MOST_TURN = math.radians(12)


def flip(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Mirror left and right, half of the time.

    Not where there are several keypoints and nobody knows which of them change places: a left
    eye would be labelled as a right one.
    """
    unpaired = sample.keypoints is not None and len(sample.keypoints) > 1
    if rng.random() < 0.5 or (unpaired and not names.mirrored_keypoints):
        return sample
    return mirror(sample, names)


def mirror(sample: Sample, names: LabelNames) -> Sample:
    """Return the sample as a mirror shows it."""

    def mirrored(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        return np.ascontiguousarray(values[:, ::-1])

    width = sample.image.shape[1]
    normals, keypoints, objects = sample.normals, sample.keypoints, sample.objects
    if normals is not None:
        normals = mirrored(normals) * np.array([-1, 1, 1], np.float32)
    if keypoints is not None:
        order = np.arange(len(keypoints))
        for one, other in names.mirrored_keypoints:
            order[[one, other]] = other, one
        keypoints = keypoints[order]
        # What is not labelled is nowhere.
        labelled = keypoints[:, 2] > 0
        keypoints[labelled, 0] = width - keypoints[labelled, 0]
    if objects is not None:
        left, top, right, bottom = objects.boxes.T
        boxes = np.stack([width - right, top, width - left, bottom], axis=1)
        masks = None if objects.masks is None else np.ascontiguousarray(objects.masks[:, :, ::-1])
        objects = Objects(boxes, objects.classes, objects.crowd, masks)
    return replace(
        sample,
        image=mirrored(sample.image),
        objects=objects,
        semantic=None if sample.semantic is None else mirrored(sample.semantic),
        keypoints=keypoints,
        depth=None if sample.depth is None else mirrored(sample.depth),
        normals=normals,
    )


def scale_crop(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Enlarge or shrink the picture, stretch it a little, and shift it.

    What is enlarged fills the frame, what is shrunk lies within it on grey.
    """
    size = height, width = sample.image.shape[:2]
    zoom = _between(rng, _LEAST_ZOOM, _MOST_ZOOM)
    stretch = math.sqrt(_between(rng, 1 / _MOST_STRETCH, _MOST_STRETCH))
    across, down = 1 / (zoom * stretch), stretch / zoom
    left, top = rng.random() * width * (1 - across), rng.random() * height * (1 - down)
    matrix = np.array([[across, 0, left], [0, down, top]])
    return _unless_lost(sample, warp(sample, Window(matrix, size, size)))


def rotate(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Turn the picture about its centre by a few degrees; its corners turn grey.

    A picture with boxes and no masks stays as it is: the box around a turned box is too large.
    Normals turn along, which is true where pixels are square.
    """
    if sample.objects is not None and sample.objects.masks is None and len(sample.objects):
        return sample
    size = height, width = sample.image.shape[:2]
    turn = rng.uniform(-_MOST_TURN, _MOST_TURN)
    back = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    centre = np.array([width / 2, height / 2])
    matrix = np.column_stack([back, centre - back @ centre])
    return _unless_lost(sample, warp(sample, Window(matrix, size, size, turn)))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a factor, evenly by its logarithm."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _unless_lost(before: Sample, after: Sample) -> Sample:
    """Return `after`, or `before` where what the picture is about has gone out of sight.

    That is: its last keypoint, its last object that is no crowd, or, where its class is that of
    its largest object, that object's place as the largest.
    """
    lost = (
        (_has_keypoints(before) and not _has_keypoints(after))
        or (_has_objects(before) and not _has_objects(after))
        or (_is_about_largest(before) and not _is_about_largest(after))
    )
    return before if lost else after


def _has_keypoints(sample: Sample) -> bool:
    return sample.keypoints is not None and bool(sample.keypoints[:, 2].any())


def _has_objects(sample: Sample) -> bool:
    return sample.objects is not None and not sample.objects.crowd.all()


def _is_about_largest(sample: Sample) -> bool:
    objects = sample.objects
    if sample.label is None or objects is None or not len(objects):
        return False
    return bool(sample.label == objects.classes[objects.areas().argmax()])
