"""Augmentations. Each keeps every label of a sample true.

A task lists those that suit it. Flips, colour, noise and blur suit all. `scale_crop` does not
suit depth and normals: a picture seen through another lens shows other metres and other surfaces
at the same pixels, and a network that is not told the intrinsics cannot know; shifting alone moves
the principal point, which is the same. `rotate` suits what has no boxes, or masks under them.
`mosaic` suits objects and class maps, of which four pictures make one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgeheads.data.augment.geometry import flip, rotate, scale_crop
from edgeheads.data.augment.mosaic import mosaic
from edgeheads.data.augment.pixels import blur, color, noise
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import unknown_name

__all__ = ["AUGMENTATIONS", "augment"]

# (sample, what decides everything, names of the labels, source of other samples) -> sample
Augmentation = Callable[
    [Sample, np.random.Generator, LabelNames, Callable[[], Sample] | None], Sample
]


AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": flip,
    "scale_crop": scale_crop,
    "rotate": rotate,
    "mosaic": mosaic,
    "color": color,
    "noise": noise,
    "blur": blur,
}


def augment(
    sample: Sample,
    augmentations: Sequence[str],
    rng: np.random.Generator,
    names: LabelNames,
    others: Callable[[], Sample] | None = None,
) -> Sample:
    """Return the sample after the named augmentations, in order; its image keeps its size.

    Args:
        sample: of any size; its labels go along.
        augmentations: keys of `AUGMENTATIONS`.
        rng: decides everything.
        names: of the sample's labels; a mirror swaps some of them.
        others: returns another sample, chosen with `rng`, each time it is called; "mosaic" needs
            it.

    Raises:
        EdgeheadsError: no augmentation is called that, or it needs `others`.
    """
    for name in augmentations:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        sample = AUGMENTATIONS[name](sample, rng, names, others)
    return sample
