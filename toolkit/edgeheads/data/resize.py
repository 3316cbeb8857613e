"""A sample at another size: the image and every label with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import resize_nearest, resize_rgb
from edgeheads.data.sample import Objects, Sample

__all__ = ["resize_sample"]


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """Return the sample at (height, width), its aspect ratio not kept.

    Maps are read at the nearest pixel, points and boxes are scaled. Depth stays as it is: the
    picture shows the same scene, through a lens of another focal length in pixels. An object whose
    mask has no pixel left, too small for this size, is dropped.
    """
    height, width = sample.image.shape[:2]
    if (height, width) == tuple(size):
        return sample
    across, down = size[1] / width, size[0] / height

    def nearest(values: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if values is None else resize_nearest(values, size)

    keypoints = sample.keypoints
    if keypoints is not None:
        keypoints = keypoints * np.array([across, down, 1], np.float32)
    scale = sample.keypoint_scale
    return replace(
        sample,
        image=resize_rgb(sample.image, size),
        objects=None if sample.objects is None else _resize_objects(sample.objects, size, sample),
        semantic=nearest(sample.semantic),
        keypoints=keypoints,
        keypoint_scale=None if scale is None else scale * float(np.sqrt(across * down)),
        depth=nearest(sample.depth),
        normals=nearest(sample.normals),
    )


def _resize_objects(objects: Objects, size: tuple[int, int], sample: Sample) -> Objects:
    height, width = sample.image.shape[:2]
    factor = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    resized = replace(objects, boxes=objects.boxes * factor)
    if objects.masks is None:
        return resized
    # Pixels first, objects last, as `resize_nearest` takes maps.
    masks = np.moveaxis(resize_nearest(np.moveaxis(objects.masks, 0, -1), size), -1, 0)
    return replace(resized, masks=masks).subset(np.any(masks, axis=(1, 2)))
