"""Augmentations. Each keeps every label of a sample true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import LabelNames, Objects, Sample
from edgeheads.errors import unknown_name

__all__ = ["AUGMENTATIONS", "augment"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


def augment(
    sample: Sample, augmentations: Sequence[str], rng: np.random.Generator, names: LabelNames
) -> Sample:
    """Return the sample after the named augmentations, in order.

    Args:
        sample: of any size; its labels go along.
        augmentations: keys of `AUGMENTATIONS`.
        rng: decides everything.
        names: of the sample's labels; a mirror swaps some of them.
    """
    for name in augmentations:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        sample = AUGMENTATIONS[name](sample, rng, names)
    return sample


def flip(sample: Sample, rng: np.random.Generator, names: LabelNames) -> Sample:
    """Mirror left and right, half of the time."""
    return sample if rng.random() < 0.5 else mirror(sample, names)


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
        keypoints = keypoints[order] * np.array([-1, 1, 1], np.float32)
        keypoints[:, 0] += width
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


def color(sample: Sample, rng: np.random.Generator, names: LabelNames) -> Sample:
    """Change exposure, contrast, gamma and white balance a little."""
    # One curve per channel, looked up: the same for a thousand pixels as for a million.
    level = np.linspace(0, 1, 256) ** rng.uniform(0.8, 1.25)
    level = (level - 0.5) * rng.uniform(0.8, 1.2) + 0.5
    curves = level[:, None] * rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, size=3)
    table = (np.clip(curves, 0, 1) * 255 + 0.5).astype(np.uint8)
    return replace(sample, image=table[sample.image, np.arange(3)])


AUGMENTATIONS: dict[str, Callable[[Sample, np.random.Generator, LabelNames], Sample]] = {
    "flip": flip,
    "color": color,
}
