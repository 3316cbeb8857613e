"""Four pictures in one (Bochkovskiy et al. 2020, "YOLOv4", section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.augment.warp import Window, warp
from edgeheads.data.sample import LabelNames, Objects, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["mosaic"]

# Where the four meet, in shares of a side; and how much larger a picture is than its tile.
_LEAST_SHARE, _MOST_SHARE = 0.3, 0.7
_MOST_OVERSIZE = 1.8

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Tile: TypeAlias = tuple[int, int, int, int]
"""left, top, right, bottom in pixels."""


def mosaic(
    sample: Sample,
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Put parts of the sample and of three others together, half of the time.

    Objects and class maps are joined. A class of the picture, keypoints, depth and normals, which
    are of one picture only, are gone.
    """
    if others is None:
        raise EdgeheadsError(
            "augmentation 'mosaic' puts several samples together, received none but one; "
            "call augment(..., others=) with a function that returns another sample"
        )
    if rng.random() < 0.5:
        return sample
    height, width = sample.image.shape[:2]
    x = round(width * rng.uniform(_LEAST_SHARE, _MOST_SHARE))
    y = round(height * rng.uniform(_LEAST_SHARE, _MOST_SHARE))
    tiles = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    parts = [
        _part(one, (bottom - top, right - left), rng)
        for one, (left, top, right, bottom) in zip(
            (sample, others(), others(), others()), tiles, strict=True
        )
    ]
    size = height, width
    objects = [part.objects for part in parts if part.objects is not None]
    semantic = [part.semantic for part in parts if part.semantic is not None]
    return Sample(
        image=_joined([part.image for part in parts], tiles, size),
        name=sample.name,
        # A kind of label that one of them lacks, the four together lack.
        objects=_joined_objects(objects, tiles, size) if len(objects) == len(parts) else None,
        semantic=_joined(semantic, tiles, size) if len(semantic) == len(parts) else None,
        problems=sample.problems,
    )


def _part(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Return a part of (height, width) out of a sample, shrunk to hardly more than that."""
    old_size = old_height, old_width = sample.image.shape[:2]
    height, width = size
    zoom = max(height / old_height, width / old_width) * rng.uniform(1, _MOST_OVERSIZE)
    left = rng.random() * (old_width - width / zoom)
    top = rng.random() * (old_height - height / zoom)
    bare = replace(sample, keypoints=None, depth=None, normals=None)
    matrix = np.array([[1 / zoom, 0, left], [0, 1 / zoom, top]])
    return warp(bare, Window(matrix, size, old_size))


def _joined(
    maps: Sequence[NDArray[_Scalar]], tiles: Sequence[_Tile], size: tuple[int, int]
) -> NDArray[_Scalar]:
    """Return maps [h, w, ...], one a tile, as one map of (height, width)."""
    joined = np.empty((*size, *maps[0].shape[2:]), maps[0].dtype)
    for values, (left, top, right, bottom) in zip(maps, tiles, strict=True):
        joined[top:bottom, left:right] = values
    return joined


def _joined_objects(
    objects: Sequence[Objects], tiles: Sequence[_Tile], size: tuple[int, int]
) -> Objects:
    boxes = [
        one.boxes + np.array((left, top, left, top), np.float32)
        for one, (left, top, _, _) in zip(objects, tiles, strict=True)
    ]
    masks = [
        np.pad(one.masks, ((0, 0), (top, size[0] - bottom), (left, size[1] - right)))
        for one, (left, top, right, bottom) in zip(objects, tiles, strict=True)
        if one.masks is not None
    ]
    return Objects(
        np.concatenate(boxes),
        np.concatenate([one.classes for one in objects]),
        np.concatenate([one.crowd for one in objects]),
        np.concatenate(masks) if len(masks) == len(objects) else None,
    )
