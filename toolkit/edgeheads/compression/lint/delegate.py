"""Operations that XNNPACK computes in float, and not in int8."""

from __future__ import annotations

from collections.abc import Iterator

from edgeheads.compression.graph import Call
from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES"]

_WITHOUT_INT8 = {
    "Absolute": "ABS",
    "AveragePool": "AVERAGE_POOL_2D",
    "AveragePooling1D": "AVERAGE_POOL_2D",
    "AveragePooling2D": "AVERAGE_POOL_2D",
    "PReLU": "PRELU",
}
_RELUS = {"relu": "RELU", "relu6": "RELU6"}
_RELU_KINDS = ("Activation", "ReLU", "Relu", "Relu6")
# What no activation becomes part of.
_UNFUSED = ("Concatenate", "InputLayer", "Resizing", "UpSampling2D")


def _outside(network: Network) -> Iterator[tuple[str, str]]:
    if network.device is not None and network.device.delegate != "xnnpack":
        return
    for call in network.calls:
        kind = kind_of(call.layer)
        if kind in _WITHOUT_INT8:
            yield call.layer.name, _WITHOUT_INT8[kind]
        elif _is_relu(call) and (reason := _alone(network, call)):
            yield call.layer.name, f"{_RELUS[activation_of(call.layer)]} {reason}"


def _is_relu(call: Call) -> bool:
    layer = call.layer
    is_bent = getattr(layer, "negative_slope", 0) or getattr(layer, "threshold", 0)
    is_other = getattr(layer, "max_value", None) not in (None, 6)
    is_kind = kind_of(layer) in _RELU_KINDS and activation_of(layer) in _RELUS
    return is_kind and not is_bent and not is_other


def _alone(network: Network, call: Call) -> str:
    """Return why an activation is no part of the operation in front; empty where it is."""
    source = network.producer(call.inputs[0])
    if kind_of(source.layer) in _UNFUSED:
        return f"behind {source.layer.name} ({kind_of(source.layer)}), which takes none"
    others = [
        one.layer.name
        for one in network.readers(source)
        if activation_of(one.layer) != activation_of(call.layer) or not _is_relu(one)
    ]
    if others:
        return f"behind {source.layer.name}, which {', '.join(others)} reads, too"
    return ""


RULES = (
    Rule(
        "outside-xnnpack",
        "Operation that XNNPACK has no int8 kernel for",
        "warning",
        "it runs in the interpreter, at a multiple of the time that float takes, and cuts the "
        "graph in parts",
        "ReLU right behind the convolution or addition that it alone reads, or edgeheads convert "
        "--fast-for device, which keeps it float; max pooling or strides for average pooling",
        _outside,
    ),
)
