"""Layers that others cannot load or convert."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES", "custom_layers"]

# Of `keras.ops` and layers: what the converter, held to built-in operations, refuses always.
_WITHOUT_BUILT_IN = frozenset(
    {
        *("Tan", "Sinh", "Cosh", "Arcsin", "Arccos", "Arctan", "Arcsinh", "Arccosh", "Arctanh"),
        *("Argmax", "Argmin", "Bincount", "Cross", "Cumprod", "Diagonal", "Erf", "Erfinv"),
        *("Cholesky", "Det", "Inv", "Qr", "Solve", "SVD"),
        *("AffineTransform", "PerspectiveTransform", "RGBToHSV"),
        *("AveragePooling3D", "MaxPooling3D"),
    }
)
_RESIZES = ("UpSampling2D", "Resizing", "Resize")
_INTERPOLATIONS = ("nearest", "bilinear")


def _custom(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if _is_custom(type(call.layer).__module__, kind_of(call.layer)):
            yield call.layer.name, f"{type(call.layer).__module__}.{kind_of(call.layer)}"


def _unconvertible(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if found := _refused(call.layer):
            yield call.layer.name, found


def _refused(layer: Any) -> str:
    """Return what the converter refuses in a layer or operation; empty where it takes it."""
    kind = kind_of(layer)
    if kind in _WITHOUT_BUILT_IN:
        return f"no built-in operation computes {kind}"
    if kind in _RESIZES:
        if layer.interpolation not in _INTERPOLATIONS:
            return f"no built-in operation has {layer.interpolation} interpolation"
        if getattr(layer, "antialias", False):
            return "no built-in operation resizes with antialiasing"
    if kind == "Conv2DTranspose" and max(layer.dilation_rate) > 1:
        return f"the built-in operation has no dilation, received {tuple(layer.dilation_rate)}"
    return ""


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
            yield str(inner.get("name", config.get("name"))), kind, f"{where}: {kind}"
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
)
