"""The one sample type that every reader yields and every task consumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sample", "SampleSource"]


@dataclass(frozen=True)
class Sample:
    """One image with whatever labels its source has; a label that is absent is None.

    Attributes:
        image: [H, W, 3] uint8, RGB.
        name: where it came from, for messages: a path, or "scene 12 of seed 0".
        depth: [H, W] float32, metres along the optical axis; 0 where there is no reading.
        normals: [H, W, 3] float32 unit vectors in the camera frame (x right, y down, z forward);
            all zero where undefined.
        instances: [H, W] int32; 0 is background, i > 0 is the i-th object.
        instance_classes: [N] int32, the class of object i at index i - 1.
    """

    image: NDArray[np.uint8]
    name: str
    depth: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    instances: NDArray[np.int32] | None = None
    instance_classes: NDArray[np.int32] | None = None


class SampleSource(Protocol):
    """A finite, indexable set of samples. Reading the same index twice gives the same sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...
