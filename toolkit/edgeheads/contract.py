"""What goes into a .tflite file and what comes out: enough to use it without any other source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError

__all__ = ["Contract", "ImageInput", "TensorSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the file.

    Attributes:
        name: in the file's signature.
        shape: with the batch of 1 in front.
        dtype: as NumPy names it.
        scale: real value of one quantization step; None where the tensor is not quantized.
        zero_point: the integer that stands for 0; None likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def quantize(self, real: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """Return real values as the tensor stores them; what is out of range saturates."""
        if self.scale is None or self.zero_point is None:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(real / np.float32(self.scale)) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored values as real float32 values."""
        if self.scale is None or self.zero_point is None:
            return stored.astype(np.float32)
        return (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)


@dataclass(frozen=True)
class ImageInput:
    """The image input: an RGB image of `height` x `width`, each pixel * scale + offset.

    An image of another size is resized to it without keeping the aspect ratio, bilinearly, with
    antialiasing where it shrinks.

    Attributes:
        tensor: the tensor that takes it.
        scale: for R, G, B, of pixels in [0, 255].
        offset: likewise.
    """

    tensor: TensorSpec
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.tensor.shape[1], self.tensor.shape[2]

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Return an RGB image [height, width, 3] of the right size as the tensor [1, H, W, 3]."""
        if image.shape != (*self.size, 3):
            raise EdgeheadsError(
                f"the model takes images of shape {(*self.size, 3)}, received {image.shape}"
            )
        return self.tensor.quantize(scale_pixels(image, self.scale, self.offset)[None])


def scale_pixels(
    image: NDArray[np.uint8],
    scale: tuple[float, float, float],
    offset: tuple[float, float, float],
) -> NDArray[np.float32]:
    """Return pixels [..., 3] in [0, 255] as the network's real input values."""
    return image.astype(np.float32) * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)


@dataclass(frozen=True)
class Contract:
    """A file's inputs, outputs, and how its task turns the outputs into a prediction.

    Attributes:
        image: the input.
        outputs: in the order of the signature's names.
        decoding: what the task's `decode` needs to know, as plain JSON values.
        labels: class names; empty for tasks without classes.
    """

    image: ImageInput
    outputs: tuple[TensorSpec, ...]
    decoding: dict[str, Any]
    labels: tuple[str, ...] = ()

    def dequantize(self, stored: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return the file's outputs as real values, by name."""
        return {spec.name: spec.dequantize(stored[spec.name]) for spec in self.outputs}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Contract:
        """Read what `to_json` wrote."""
        image = content["image"]
        return cls(
            ImageInput(_tensor(image["tensor"]), tuple(image["scale"]), tuple(image["offset"])),
            tuple(_tensor(one) for one in content["outputs"]),
            dict(content["decoding"]),
            tuple(content["labels"]),
        )


def _tensor(content: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(**{**content, "shape": tuple(content["shape"])})
