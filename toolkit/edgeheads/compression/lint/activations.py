"""Activations that int8 kernels have no fast path for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from edgeheads.compression.graph import Call
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["HARD_SWISH", "RULES", "activation_of", "written_out"]

HARD_SWISH = ("hard_silu", "hard_swish")
_SMOOTH = ("silu", "swish", "gelu", "mish", "softplus", "selu", "elu", "celu", "glu", "squareplus")
_GATES = ("sigmoid", "hard_sigmoid")

# Operations of `keras.ops`, and layers, that are an activation by themselves.
_BY_CLASS = {
    "HardSilu": "hard_silu",
    "HardSwish": "hard_swish",
    "HardSigmoid": "hard_sigmoid",
    "Silu": "silu",
    "Gelu": "gelu",
    "Mish": "mish",
    "Softplus": "softplus",
    "Selu": "selu",
    "Elu": "elu",
    "ELU": "elu",
    "Celu": "celu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softmax": "softmax",
    "Relu": "relu",
    "ReLU": "relu",
    "Relu6": "relu6",
}


def activation_of(layer: Any) -> str:
    """Return the activation a layer ends in, by its Keras name; "linear" where it has none."""
    if kind_of(layer) == "ReLU" and getattr(layer, "max_value", None) == 6:
        return "relu6"
    if kind_of(layer) in _BY_CLASS:
        return _BY_CLASS[kind_of(layer)]
    activation = getattr(layer, "activation", None)
    if activation is None:
        return "linear"
    name: str = getattr(activation, "__name__", kind_of(activation))
    return name


def written_out(network: Network, call: Call) -> int | None:
    """Return which input of a product x (relu6(x + 3) / 6) is x; None for any other call."""
    if kind_of(call.layer) != "Multiply" or len(call.inputs) != 2:
        return None
    for index, x in enumerate(call.inputs):
        gate = network.producer(call.inputs[1 - index])
        if activation_of(gate.layer) == "hard_sigmoid" and len(gate.inputs) == 1:
            if gate.inputs[0] is x and kind_of(gate.layer) in ("Activation", "HardSigmoid"):
                return index
            continue
        if not _is_affine(gate, 1 / 6, 0):
            continue
        clipped = network.producer(gate.inputs[0])
        if activation_of(clipped.layer) != "relu6" or len(clipped.inputs) != 1:
            continue
        shifted = network.producer(clipped.inputs[0])
        if _is_affine(shifted, 1, 3) and shifted.inputs[0] is x:
            return index
    return None


def _is_affine(call: Call, scale: float, offset: float) -> bool:
    """Whether a call computes scale * x + offset of its one input, to float32's precision."""
    if len(call.inputs) != 1:
        return False
    found: tuple[Any, Any]
    if kind_of(call.layer) == "Rescaling":
        found = (call.layer.scale, call.layer.offset)
    else:
        numbers = [
            one for one in (*call.args, *call.kwargs.values()) if isinstance(one, (int, float))
        ]
        if len(numbers) != 1:
            return False
        of_number = {"Add": (1.0, numbers[0]), "Multiply": (numbers[0], 0.0)}
        found = of_number.get(kind_of(call.layer), (None, None))
        if kind_of(call.layer) in ("TrueDivide", "Divide") and numbers[0]:
            found = (1 / numbers[0], 0.0)
    if not all(isinstance(one, (int, float)) for one in found):
        return False
    return math.isclose(found[0], scale, rel_tol=1e-5) and math.isclose(found[1], offset)


def _hard_swish(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if activation_of(call.layer) in HARD_SWISH:
            yield call.layer.name, f"{_shape(call)} values"
        elif written_out(network, call) is not None:
            yield call.layer.name, f"{_shape(call)} values; x relu6(x + 3) / 6, written out"


def _smooth(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        name = activation_of(call.layer)
        if name in _SMOOTH:
            yield call.layer.name, f"{name} of {_shape(call)} values"


def _gate(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) != "Multiply" or len(call.inputs) != 2:
            continue
        if written_out(network, call) is not None:
            continue
        for gate in call.inputs:
            # relu6(x + 3) / 6 ends in a product with a number, which takes one tensor.
            source = network.producer(gate)
            while len(source.inputs) == 1 and kind_of(source.layer) in _PASSING:
                source = network.producer(source.inputs[0])
            # Of one position there is no map to scale: this is an activation, not a gate.
            is_single = call.outputs[0].shape == gate.shape
            is_gate = activation_of(source.layer) in (*_GATES, "relu6")
            if is_gate and not is_single and not _is_map(gate):
                shape = "x".join(str(one) for one in call.outputs[0].shape[1:])
                yield (
                    call.layer.name,
                    f"{source.layer.name} ({activation_of(source.layer)}) scales {shape} values",
                )


_PASSING = ("Multiply", "Reshape", "Rescaling", "TrueDivide")


def _is_map(gate: Any) -> bool:
    """Whether a gate has a value for each position, as in a gated FFN or spatial attention."""
    return len(gate.shape) == 4 and gate.shape[1:3] != (1, 1)


def _shape(call: Call) -> str:
    return "x".join(str(one) for one in call.outputs[0].shape[1:])


RULES = (
    Rule(
        "hard-swish",
        "Hard-swish",
        "warning",
        "int8 HARD_SWISH is outside XNNPACK: it runs in the interpreter, and cuts the graph in "
        "parts; int8 can be slower than float",
        "ReLU6, and train again; or --fix, which computes the same from operations of any device; "
        "or, for CPUs, edgeheads convert --fast-for device, which leaves the model as it is",
        _hard_swish,
        is_fixable=True,
    ),
    Rule(
        "smooth-activation",
        "Swish, GELU and other smooth activations",
        "warning",
        "int8 has no kernel that is fused with the convolution; the curve is cut in several "
        "operations, each of which rounds again, and its small negative values share a scale "
        "with large positive ones",
        "ReLU6 or ReLU, which cost nothing behind a convolution; train again",
        _smooth,
    ),
    Rule(
        "squeeze-excitation",
        "Squeeze-and-excitation gate",
        "note",
        "the pooled mean and the gate are few values that scale whole maps: their rounding is an "
        "error of all positions alike, and a pass over the whole map is paid for it",
        "the network's variant without squeeze-and-excitation, such as MobileNetV3 minimalistic, "
        "MobileNetV2 or EfficientNet-Lite",
        _gate,
    ),
)
