"""Labels as files have them, made sound: what is wrong is mended or left out, and said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import read_rgb, resize_nearest
from edgeheads.data.sample import Objects
from edgeheads.errors import EdgeheadsError

__all__ = [
    "MAX_OBJECTS",
    "Complaints",
    "fit_mask",
    "make_objects",
    "mirrored_pairs",
    "read_labelled_picture",
    "require_few",
    "require_size",
    "usable_keypoints",
]

MAX_OBJECTS = 10_000
"""An image with more objects is refused."""

# Masks of one image are held at once, a byte for each pixel of each.
_MAX_MASK_PIXELS = 1_000_000_000

# Tools disagree whether the first pixel is 0 or 1, so this much over the edge is no mistake.
_TOLERANCE_PX = 1.0

# A mask of another size than its image is stretched if the aspect ratios differ by no more.
_ASPECT_TOLERANCE = 0.01


class Complaints:
    """Collects what is wrong with the labels of one sample: one sentence for each kind.

    Args:
        name: the sample's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, kind: str, example: object = "") -> None:
        """Take note of one label; the first example of each kind is quoted."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self._first.setdefault(kind, str(example)[:80])

    def texts(self) -> tuple[str, ...]:
        """Return the sentences."""
        return tuple(
            f"{self._name}: {kind}"
            + (f", {count} times" if count > 1 else "")
            + (f"; received {self._first[kind]}" if self._first[kind] else "")
            for kind, count in self._counts.items()
        )


def read_labelled_picture(
    path: Path, size: tuple[int, int] | None, complaints: Complaints
) -> NDArray[np.uint8]:
    """Return the picture [H, W, 3] that labels refer to.

    That is the upright one, as viewers show it. Where the size of the labels says that they were
    drawn on the picture as it is stored, before the quarter turn that its camera asks for, it is
    left as it is stored.

    Args:
        path: of the picture.
        size: (height, width) that the labels are for, as far as they say.
        complaints: take note of a picture that is not upright.

    Raises:
        EdgeheadsError: the picture cannot be read.
    """
    image = read_rgb(path)
    if size is None or size == image.shape[:2] or size != image.shape[1::-1]:
        return image
    stored = read_rgb(path, upright=False)
    if stored.shape[:2] != size:
        return image
    complaints.add("labels refer to the picture before its EXIF rotation, which is not applied")
    return stored


def require_size(image: NDArray[np.uint8], size: tuple[int, int] | None, path: Path) -> None:
    """Raise EdgeheadsError where a picture has not the (height, width) its annotation says."""
    if size is not None and image.shape[:2] != size:
        raise EdgeheadsError(
            f"image {path} has {image.shape[1]}x{image.shape[0]} pixels, its annotation says "
            f"{size[1]}x{size[0]}; resize the labels along with the picture"
        )


def require_few(count: int, where: str, mask_size: tuple[int, int] | None = None) -> None:
    """Refuse an image with more objects, or more pixels in their masks, than fit into memory.

    Args:
        count: of objects.
        where: the image, for messages.
        mask_size: (height, width) of each object's mask, if they have masks.

    Raises:
        EdgeheadsError: there are more than `MAX_OBJECTS`, or the masks are too large together.
    """
    if count > MAX_OBJECTS:
        raise EdgeheadsError(
            f"{where} has {count:,} objects, more than the {MAX_OBJECTS:,} allowed in one image; "
            "cut it into tiles"
        )
    height, width = mask_size or (0, 0)
    if count * height * width > _MAX_MASK_PIXELS:
        raise EdgeheadsError(
            f"{where} has {count:,} masks of {width}x{height}, more than the "
            f"{_MAX_MASK_PIXELS:,} pixels allowed for one image; resize it, or cut it into tiles"
        )


def make_objects(
    boxes: Sequence[Sequence[float]],
    classes: Sequence[int],
    crowd: Sequence[bool],
    size: tuple[int, int],
    complaints: Complaints,
    masks: Sequence[NDArray[np.bool_]] | None = None,
) -> Objects:
    """Return the objects whose boxes show something of the image, clipped to it.

    Args:
        boxes: x_min, y_min, x_max, y_max each, as in `Objects`.
        classes: of each, indices.
        crowd: of each.
        size: (height, width) of the image.
        complaints: take note of boxes that are clipped or left out.
        masks: [H, W] of each, or None.
    """
    raw = np.array(boxes, np.float64).reshape(-1, 4)
    height, width = size
    clipped = np.clip(raw, 0, [width, height, width, height])
    keep = np.zeros(len(raw), bool)
    for index, (before, after) in enumerate(zip(raw, clipped, strict=True)):
        shown = [round(float(value), 2) for value in before]
        if not np.isfinite(before).all():
            complaints.add("box with a number that is not finite, left out", shown)
        elif before[2] <= before[0] or before[3] <= before[1]:
            complaints.add("box without area, left out", shown)
        elif after[2] <= after[0] or after[3] <= after[1]:
            complaints.add("box outside the image, left out", shown)
        else:
            keep[index] = True
            if np.abs(before - after).max() > _TOLERANCE_PX:
                complaints.add("box that reaches out of the image, clipped", shown)
    stacked = None
    if masks is not None:
        kept = [mask for mask, wanted in zip(masks, keep, strict=True) if wanted]
        stacked = np.array(kept, bool).reshape(-1, height, width)
    return Objects(
        clipped[keep].astype(np.float32),
        np.array(classes, np.int32).reshape(-1)[keep],
        np.array(crowd, bool).reshape(-1)[keep],
        stacked,
    )


def fit_mask(
    mask: NDArray[Any], size: tuple[int, int], where: str, complaints: Complaints
) -> NDArray[Any]:
    """Return a mask [h, w] at the (height, width) of its image.

    One of the same aspect ratio, within 1 %, is resized, each pixel from the nearest.

    Raises:
        EdgeheadsError: the aspect ratios differ by more.
    """
    if mask.shape == tuple(size):
        return mask
    both = f"{mask.shape[1]}x{mask.shape[0]} for an image of {size[1]}x{size[0]}"
    ratio = (mask.shape[1] * size[0]) / (mask.shape[0] * size[1])
    if abs(ratio - 1) > _ASPECT_TOLERANCE:
        raise EdgeheadsError(
            f"mask {where} is {both}, another aspect ratio; export it at the size of its image"
        )
    complaints.add("mask of another size than its image, resized to it", both)
    return resize_nearest(mask, size)


def usable_keypoints(
    points: NDArray[Any], size: tuple[int, int], complaints: Complaints
) -> NDArray[np.float32]:
    """Return keypoints [K, 3] as in `Sample`, those outside the image as not labelled.

    Args:
        points: [K, 3] x, y, visibility; NaN where nobody labelled one.
        size: (height, width) of the image.
        complaints: take note of points outside.
    """
    height, width = size
    points = np.array(points, np.float64)
    points[~np.isfinite(points).all(axis=1)] = 0
    labelled = points[:, 2] > 0
    x, y = points[:, 0], points[:, 1]
    inside = (x >= 0) & (y >= 0) & (x <= width) & (y <= height)
    for point in points[labelled & ~inside]:
        complaints.add(
            "keypoint outside the image, left out", [round(float(value), 1) for value in point[:2]]
        )
    points[~(labelled & inside)] = 0
    return points.astype(np.float32)


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of keypoints that differ in "left" and "right", or in "l" and "r"."""
    keys = [_words(name) for name in names]
    pairs = []
    for index, key in enumerate(keys):
        if "left" in key:
            other = tuple("right" if word == "left" else word for word in key)
            if other in keys:
                pairs.append((index, keys.index(other)))
    return tuple(pairs)


def _words(name: str) -> tuple[str, ...]:
    # "leftEye", "left_eye", "LEFT-EYE", "eye.l" and "lefteye" all say left.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.sub(r"(left|right)", r" \1 ", spaced)
    short = {"l": "left", "r": "right"}
    return tuple(short.get(word, word) for word in re.split(r"[^a-z0-9]+", words) if word)
