"""Layers that others cannot load or convert."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeheads.compression.graph import Call
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES", "WITHOUT_BUILT_IN", "custom_layers"]

# Of `keras.ops` and layers: what the converter, held to built-in operations, refuses always.
WITHOUT_BUILT_IN = frozenset(
    {
        *("Tan", "Sinh", "Cosh", "Arcsin", "Arccos", "Arctan", "Arcsinh", "Arccosh", "Arctanh"),
        *("Argmax", "Argmin", "Nanargmax", "Nanargmin", "InTopK", "Nonzero", "SearchSorted"),
        *(
            "Bincount",
            "CategoryEncoding",
            "Cross",
            "Cumprod",
            "Nancumprod",
            "Diagonal",
            "Nanmedian",
        ),
        *("Erf", "Erfc", "Erfinv", "I0", "Polar", "Signbit", "LeftShift", "BitwiseInvert"),
        *("Cholesky", "CholeskyInverse", "Det", "Eig", "Eigh", "Inv", "Logdet", "LuFactor"),
        *("Lstsq", "MatrixRank", "Pinv", "Qr", "Slogdet", "Solve", "SolveTriangular", "SVD"),
        *("AffineTransform", "PerspectiveTransform", "HSVToRGB", "RGBToHSV"),
        *("AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D", "AveragePooling3D", "MaxPooling3D"),
    }
)
# Over three axes there is a convolution, and no pooling.
_POOLS = ("AdaptiveAveragePool", "AdaptiveMaxPool", "AveragePool", "MaxPool")
_GLOBAL = "GlobalAveragePooling2D or GlobalMaxPooling2D"
_DILATABLE = ("Conv1DTranspose", "Conv2DTranspose")
_RESIZES = ("UpSampling2D", "Resizing", "Resize")
_INTERPOLATIONS = ("nearest", "bilinear")
_IMAGE_RANK = 4


def _custom(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if _is_custom(type(call.layer).__module__, kind_of(call.layer)):
            yield call.layer.name, f"{type(call.layer).__module__}.{kind_of(call.layer)}"


def _unconvertible(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if found := _refused(call):
            yield call.layer.name, found


def _not_finite(network: Network) -> Iterator[tuple[str, str]]:
    for layer in network.model.layers:
        for weight in layer.weights:
            values = np.asarray(keras.ops.convert_to_numpy(weight))
            wrong = values.size - int(np.isfinite(values.astype(np.float32)).sum())
            if wrong:
                yield layer.name, f"{wrong} of {values.size} values of its {weight.name}"
                break


def _refused(call: Call) -> str:
    """Return what the converter refuses in a layer or operation; empty where it takes it."""
    layer, kind = call.layer, kind_of(call.layer)
    if kind in WITHOUT_BUILT_IN:
        return f"no built-in operation computes {kind}"
    if kind in _POOLS and len(call.inputs[0].shape) > _IMAGE_RANK:
        return f"no built-in operation computes {kind} over three axes"
    if kind == "Where" and len(call.inputs) == 1:
        return "no built-in operation computes Where without two values to choose from"
    if kind.startswith("Adaptive") and 1 in _sides(layer.output_size):
        return f"Keras computes it by windows wider than the map where it pools to 1; use {_GLOBAL}"
    if kind in _RESIZES:
        if layer.interpolation not in _INTERPOLATIONS:
            return f"no built-in operation has {layer.interpolation} interpolation"
        if getattr(layer, "antialias", False):
            return "no built-in operation resizes with antialiasing"
    if kind == "Conv3D" and (max(layer.dilation_rate) > 1 or layer.groups > 1):
        return "the built-in operation over three axes has neither dilation nor groups"
    if kind in _DILATABLE and max(layer.dilation_rate) > 1:
        return f"the built-in operation has no dilation, received {tuple(layer.dilation_rate)}"
    return ""


def _sides(size: int | Sequence[int]) -> Sequence[int]:
    return (size,) if isinstance(size, int) else size


def custom_layers(file: Path) -> list[tuple[str, str, str]]:
    """Return (name, class, detail) of a .keras file's custom layers, without loading it.

    Empty for a file that is no readable .keras file: loading it says what is wrong.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []
    return list(dict.fromkeys(_custom_in(config)))


def _custom_in(config: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(config, list):
        for one in config:
            yield from _custom_in(one)
    if not isinstance(config, dict):
        return
    # Only the entries of a graph have a name of their own; other objects are options of layers.
    inner = config.get("config")
    if "class_name" in config and isinstance(inner, dict):
        module, kind = config.get("module"), str(config["class_name"])
        is_layer = "build_config" in config or "inbound_nodes" in config
        if is_layer and "layers" not in inner and _is_custom(module, kind):
            where = module or config.get("registered_name") or "a module of its own"
            yield str(inner.get("name", config.get("name", kind))), kind, f"{where}: {kind}"
            return
    for value in config.values():
        yield from _custom_in(value)


def _is_custom(module: str | None, kind: str) -> bool:
    # A Lambda's code is in the file: it is custom whoever wrote the class.
    return kind == "Lambda" or (module or "").partition(".")[0] not in ("keras", "keras_hub")


RULES = (
    Rule(
        "custom-layer",
        "Custom layer",
        "error",
        "only code that is not in the file knows what it computes: it loads nowhere else, and "
        "folding, pruning and quantization cannot look inside",
        "stock Keras layers, called in a functional model",
        _custom,
        is_int8=False,
    ),
    Rule(
        "unconvertible",
        "No built-in operation",
        "error",
        "the converter refuses the model: TensorFlow's own operations (Flex), which would compute "
        "it, are not in the interpreters of devices",
        "bilinear or nearest resizing, sums, products and the other functions of `keras.ops`, or "
        "the computation outside the model, on what it returns",
        _unconvertible,
        is_int8=False,
    ),
    Rule(
        "not-finite",
        "NaN or infinite weights",
        "error",
        "all that is computed from them is NaN, too, and no range can be measured",
        "the checkpoint before training diverged, and a lower learning rate",
        _not_finite,
        is_int8=False,
    ),
)
