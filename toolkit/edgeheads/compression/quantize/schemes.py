"""The ways in which numbers are stored and computed: one table, which needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from edgeheads.errors import unknown_name

__all__ = ["SCHEMES", "Scheme", "get_scheme"]


@dataclass(frozen=True)
class Scheme:
    """How a .tflite file stores weights, computes activations, and takes and gives tensors.

    Attributes:
        name: what `--precision`, `--scheme`, `export.precisions` and the Bundle's folder say.
        title: for help and tables.
        weights: dtype they are stored in.
        activations: dtype they are computed in.
        io: dtype of the file's inputs and outputs.
    """

    name: str
    title: str
    weights: str = "float32"
    activations: str = "float32"
    io: str = "float32"

    @property
    def calibrated(self) -> bool:
        """Whether ranges of activations have to be measured on images."""
        return self.activations.startswith("int")

    @property
    def computes(self) -> str:
        """The name of the scheme that computes alike, whatever it takes and gives."""
        return "int8" if self.activations == "int8" else self.name


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("float32", "nothing quantized"),
        Scheme("float16", "weights in half the bytes, computed in float32", weights="float16"),
        Scheme("dynamic", "int8 weights, activations quantized as they come", weights="int8"),
        Scheme("int8", "integers throughout", "int8", "int8", "int8"),
        Scheme("int8-uint8-io", "int8 that takes and gives uint8", "int8", "int8", "uint8"),
        Scheme("int8-float-io", "int8 that takes and gives float32", "int8", "int8", "float32"),
        Scheme("int16x8", "int8 weights, int16 activations", "int8", "int16", "int16"),
    )
}


def get_scheme(name: str) -> Scheme:
    """Return a scheme by its name.

    Raises:
        EdgeheadsError: there is none of that name; the text lists close ones.
    """
    if name not in SCHEMES:
        raise unknown_name("quantization scheme", name, SCHEMES)
    return SCHEMES[name]
