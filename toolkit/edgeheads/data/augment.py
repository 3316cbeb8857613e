"""Augmentations. Each keeps every label of a sample true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.sample import Sample
from edgeheads.errors import unknown_name

__all__ = ["AUGMENTATIONS", "augment"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


def augment(sample: Sample, names: Sequence[str], rng: np.random.Generator) -> Sample:
    """Return the sample after the named augmentations, in order."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        sample = AUGMENTATIONS[name](sample, rng)
    return sample


def flip(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right, half of the time."""
    if rng.random() < 0.5:
        return sample

    def mirrored(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        return np.ascontiguousarray(values[:, ::-1])

    sample = replace(sample, image=mirrored(sample.image))
    if sample.depth is not None:
        sample = replace(sample, depth=mirrored(sample.depth))
    if sample.instances is not None:
        sample = replace(sample, instances=mirrored(sample.instances))
    if sample.normals is not None:
        across = np.array([-1, 1, 1], np.float32)
        sample = replace(sample, normals=mirrored(sample.normals) * across)
    return sample


def color(sample: Sample, rng: np.random.Generator) -> Sample:
    """Change exposure, contrast, gamma and white balance a little."""
    # One curve per channel, looked up: the same for a thousand pixels as for a million.
    level = np.linspace(0, 1, 256) ** rng.uniform(0.8, 1.25)
    level = (level - 0.5) * rng.uniform(0.8, 1.2) + 0.5
    curves = level[:, None] * rng.uniform(0.8, 1.2) * rng.uniform(0.93, 1.07, size=3)
    table = (np.clip(curves, 0, 1) * 255 + 0.5).astype(np.uint8)
    return replace(sample, image=table[sample.image, np.arange(3)])


AUGMENTATIONS: dict[str, Callable[[Sample, np.random.Generator], Sample]] = {
    "flip": flip,
    "color": color,
}
