"""What one image costs a network in multiply-accumulates and in parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from edgeheads.compression.graph import Call, calls
from edgeheads.errors import EdgeheadsError

__all__ = ["count_macs", "count_parameters", "kernels"]


def count_macs(model: keras.Model) -> int:
    """Return the multiply-accumulates of one image through a functional model of fixed size.

    Convolutions of every kind and dense layers count, models inside the model included;
    activations, additions, pooling and resizing, as is the custom, do not, nor does the product of
    two computed tensors, as in attention.

    Raises:
        EdgeheadsError: a layer whose input size is not known.
    """
    total = 0
    for call in calls(model):
        if isinstance(call.layer, keras.Model):
            total += count_macs(call.layer)
        for positions, kernel in kernels(call):
            total += positions * math.prod(kernel.shape)
    return total


def count_parameters(model: keras.Model) -> int:
    """Return how many numbers the weights are, batch norm's statistics included."""
    return int(model.count_params())


def kernels(call: Call) -> list[tuple[int, Any]]:
    """Return (how many times for one image, kernel variable) of a call's multiplications.

    The call costs the sum of times x the product of the kernel's shape; this holds for grouped,
    depthwise and transposed kernels alike.
    """
    for kind, rule in _RULES:
        if isinstance(call.layer, kind):
            return rule(call)
    return []


def _convolution(call: Call) -> list[tuple[int, Any]]:
    return [(_positions(call, call.outputs[0], call.layer), call.layer.kernel)]


def _transposed(call: Call) -> list[tuple[int, Any]]:
    # Each input position is multiplied with the whole kernel.
    return [(_positions(call, call.inputs[0], call.layer), call.layer.kernel)]


def _separable(call: Call) -> list[tuple[int, Any]]:
    positions = _positions(call, call.outputs[0], call.layer)
    return [(positions, call.layer.depthwise_kernel), (positions, call.layer.pointwise_kernel)]


def _dense(call: Call) -> list[tuple[int, Any]]:
    return [(_known(call, call.outputs[0].shape[1:-1]), call.layer.kernel)]


def _positions(call: Call, tensor: Any, layer: Any) -> int:
    first = layer.data_format == "channels_first"
    return _known(call, tensor.shape[2:] if first else tensor.shape[1:-1])


def _known(call: Call, sides: tuple[int | None, ...]) -> int:
    if None in sides:
        raise EdgeheadsError(
            f"layer {call.layer.name!r} works on {sides} positions, of which some are not known; "
            "build the model with a fixed input size to count its operations"
        )
    return math.prod(side for side in sides if side is not None)


_Rule = Callable[[Call], list[tuple[int, Any]]]

# The first that fits counts: some of these classes inherit from others.
_RULES: tuple[tuple[tuple[type, ...], _Rule], ...] = (
    ((keras.layers.SeparableConv1D, keras.layers.SeparableConv2D), _separable),
    (
        (
            keras.layers.Conv1DTranspose,
            keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        _transposed,
    ),
    (
        (
            keras.layers.Conv1D,
            keras.layers.Conv2D,
            keras.layers.Conv3D,
            keras.layers.DepthwiseConv1D,
            keras.layers.DepthwiseConv2D,
        ),
        _convolution,
    ),
    ((keras.layers.Dense,), _dense),
)
