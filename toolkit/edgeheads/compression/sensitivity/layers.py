"""The layers of a float .tflite file that can be quantized one by one."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edgeheads.export.flatgraph import FlatGraph

__all__ = ["WEIGHT_AXES", "Layer", "find_layers", "keep_float_for"]

# operation -> the axis of its weights that has a scale for each channel.
WEIGHT_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


@dataclass(frozen=True)
class Layer:
    """An operation with weights.

    Attributes:
        name: of the tensor that it computes, the same in the float and the quantized file.
        kind: such as CONV_2D.
        macs: multiply-accumulates for one image.
    """

    name: str
    kind: str
    macs: int


def find_layers(float_model: bytes) -> list[Layer]:
    """Return the operations with constant weights, in computing order."""
    graph = FlatGraph(float_model)
    return [
        Layer(graph.name(int(one.outputs[0])), graph.kind(one), _macs(graph, one))
        for one in graph.operations
        if graph.kind(one) in WEIGHT_AXES
    ]


def keep_float_for(float_model: bytes, names: Collection[str]) -> set[str]:
    """Return every tensor whose operation stays float where the layers `names` do.

    Those between layers, such as additions, stay float only where every layer does: in a file of
    int8 layers they cost little, and a float one among them costs two conversions.
    """
    layers = {layer.name for layer in find_layers(float_model)}
    if not layers <= set(names):
        return set(names)
    graph = FlatGraph(float_model)
    return {graph.name(int(tensor)) for one in graph.operations for tensor in one.outputs}


def _macs(graph: FlatGraph, operation: Any) -> int:
    weights = graph.shape(int(operation.inputs[1]))
    outputs = math.prod(graph.shape(int(operation.outputs[0])))
    if graph.kind(operation) == "DEPTHWISE_CONV_2D":
        return outputs * weights[1] * weights[2]
    return outputs * math.prod(weights[1:])
