"""What zeros save: counted in a model, and in the bytes of a file as it is and zipped."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import keras
import numpy as np

from edgeheads.compression.prune.magnitude import prunable_kernels

__all__ = ["FileSize", "LayerSparsity", "file_size", "layer_sparsity"]


@dataclass(frozen=True)
class FileSize:
    """The bytes of a file.

    Attributes:
        raw: as it lies on a disk, and in memory.
        zipped: deflated at level 9, as in an app package: what is downloaded.
    """

    raw: int
    zipped: int


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one kernel.

    Attributes:
        name: the layer's.
        weights: of the kernel.
        zeros: of them.
    """

    name: str
    weights: int
    zeros: int


def file_size(content: bytes) -> FileSize:
    """Return the raw and the zipped size of a file's content."""
    return FileSize(len(content), len(zlib.compress(content, 9)))


def layer_sparsity(model: keras.Model) -> list[LayerSparsity]:
    """Return the zeros of each kernel that magnitude pruning works on."""
    found = []
    for name, kernel in prunable_kernels(model).items():
        values = keras.ops.convert_to_numpy(kernel)
        found.append(LayerSparsity(name, values.size, int(np.sum(values == 0))))
    return found
