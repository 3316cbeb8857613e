"""The one sample type that every reader yields and every task consumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORED", "LabelNames", "Objects", "Sample", "SampleSource", "box_around"]

IGNORED = -1
"""The class of a pixel in `Sample.semantic` that counts for nothing."""


@dataclass(frozen=True)
class LabelNames:
    """What the numbers in a source's labels stand for. A kind of label it has not is empty.

    Attributes:
        classes: of images (`Sample.label`) and of objects (`Objects.classes`).
        semantic: of pixels (`Sample.semantic`).
        keypoints: of `Sample.keypoints`, in their order.
        mirrored_keypoints: pairs of keypoints that change places in a mirror, such as a left and
            a right eye.
    """

    classes: tuple[str, ...] = ()
    semantic: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    mirrored_keypoints: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Objects:
    """The objects in an image.

    Attributes:
        boxes: [N, 4] float32, x_min, y_min, x_max, y_max in pixels of the image; a box around the
            one pixel in row 0, column 0 is (0, 0, 1, 1).
        classes: [N] int32, indices of `LabelNames.classes`.
        crowd: [N] bool; true for a group, or an object too hard to tell, which is neither missed
            when it is not found nor wrong when it is.
        masks: [N, H, W] bool, the pixels of each object, or None where nobody drew them.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self.boxes)

    def areas(self) -> NDArray[np.float32]:
        """Return the size [N] of each in square pixels: of its mask, or else of its box."""
        if self.masks is not None:
            return self.masks.sum(axis=(1, 2)).astype(np.float32)
        left, top, right, bottom = self.boxes.T
        areas: NDArray[np.float32] = (right - left) * (bottom - top)
        return areas

    def subset(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Objects:
        """Return the objects at some rows."""
        masks = None if self.masks is None else self.masks[rows]
        return Objects(self.boxes[rows], self.classes[rows], self.crowd[rows], masks)


def box_around(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the box, as in `Objects`, around the pixels of a mask [H, W] that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Sample:
    """One image with whatever labels its source has; a label that is absent is None.

    Attributes:
        image: [H, W, 3] uint8, RGB.
        name: where it came from, for messages: a path, or "scene 12 of seed 0".
        label: the image's class, an index of `LabelNames.classes`.
        objects: what stands in it.
        semantic: [H, W] int32, the class of every pixel, an index of `LabelNames.semantic`;
            `IGNORED` where nobody knows.
        keypoints: [K, 3] float32: x and y in pixels of the image, (0.5, 0.5) the centre of the
            first one, and how it is seen: 0 not labelled, 1 hidden, 2 visible.
        keypoint_scale: pixels that keypoint errors are measured by: the square root of the area
            of the object they belong to; None where there is no object but the image.
        depth: [H, W] float32, metres along the optical axis; 0 where there is no reading.
        normals: [H, W, 3] float32 unit vectors in the camera frame (x right, y down, z forward);
            all zero where undefined.
        problems: what was wrong with the labels and was mended or left out, a sentence each.
    """

    image: NDArray[np.uint8]
    name: str
    label: int | None = None
    objects: Objects | None = None
    semantic: NDArray[np.int32] | None = None
    keypoints: NDArray[np.float32] | None = None
    keypoint_scale: float | None = None
    depth: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    problems: tuple[str, ...] = ()


class SampleSource(Protocol):
    """A finite, indexable set of samples. Reading the same index twice gives the same sample.

    Attributes:
        names: what the numbers in the labels stand for.
    """

    @property
    def names(self) -> LabelNames:
        """See above."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...
