"""Synthetic indoor scenes with exact labels, rendered where they are needed: NumPy only.

What makes metric depth learnable from one of these images is what makes it learnable from a
photograph: a fixed field of view, a camera at eye height, rooms, objects and textures of familiar
size, contact with the floor, and shadows.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator

import numpy as np

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.scenes.labels import NAMES
from edgeheads.data.scenes.layout import CLASS_NAMES, MIN_DEPTH_M, Scene, close_up, random_scene
from edgeheads.data.scenes.picture import render
from edgeheads.errors import EdgeheadsError

__all__ = [
    "CLASS_NAMES",
    "MAX_DEPTH_M",
    "MIN_DEPTH_M",
    "RENDERED",
    "SyntheticObjects",
    "SyntheticScenes",
]

MAX_DEPTH_M = 10.0
"""Nothing is farther from the camera, in metres."""

_MIN_SIDE_PX = 16
_MAX_ASPECT = 2.0


class SyntheticScenes:
    """Rooms with two to six objects, each a `Sample` with every label exact.

    A sample depends on its index, the seed, the split and the size, not on what was read before.
    It is the same in every process; across NumPy versions and processors it is the same up to
    rounding. The image has lens blur, vignetting and sensor noise; the labels are those of the
    pixel centres. Objects that nobody can see are not labelled: every listed instance has pixels.

    Args:
        count: how many scenes, at least 0.
        size: (height, width) of the images in pixels, each at least 16 and at most twice the
            other. The horizontal field of view is 60 degrees.
        seed: at least 0.
        split: any name; different names have no scene in common.
    """

    def __init__(
        self, count: int, size: tuple[int, int], *, seed: int = 0, split: str = "train"
    ) -> None:
        height, width = size
        if count < 0:
            raise EdgeheadsError(f"count must be at least 0; received count={count}")
        if min(size) < _MIN_SIDE_PX:
            raise EdgeheadsError(
                f"size must be (height, width) of at least {_MIN_SIDE_PX} pixels each; "
                f"received size={size}"
            )
        if max(size) > _MAX_ASPECT * min(size):
            raise EdgeheadsError(
                f"size must be (height, width) with one at most twice the other, because the "
                f"horizontal field of view is fixed; received size={size}"
            )
        if seed < 0:
            raise EdgeheadsError(f"seed must be at least 0; received seed={seed}")
        self._count = count
        self._size = (height, width)
        self._seed = seed
        self._split = split

    @property
    def names(self) -> LabelNames:
        """What the numbers in the labels stand for."""
        return NAMES

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self._count))

    def __getitem__(self, index: int) -> Sample:
        """Render one scene; index is in [0, count)."""
        index = operator.index(index)
        if not 0 <= index < self._count:
            raise IndexError(f"index must be in [0, {self._count}); received index={index}")
        key = hashlib.sha256(f"{self._seed} {index} {self._split}".encode()).digest()
        rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(key, "big")))
        name = f"scene {index} of {self._split}, seed {self._seed}"
        return render(self._compose(rng), rng, name)

    def _compose(self, rng: np.random.Generator) -> Scene:
        return random_scene(rng, self._size)


class SyntheticObjects(SyntheticScenes):
    """The same rooms through a longer lens, turned to one object, which fills most of the picture.

    For what is to be learned of an object alone, such as its class. The lens is another for each
    picture, so that metric depth is not to be learned from these.

    Args: see `SyntheticScenes`, but for the field of view.
    """

    def _compose(self, rng: np.random.Generator) -> Scene:
        return close_up(random_scene(rng, self._size), rng)


RENDERED: dict[str, type[SyntheticScenes]] = {
    "synthetic": SyntheticScenes,
    "synthetic-objects": SyntheticObjects,
}
"""What a recipe calls the sources that need no data."""
