"""A file's integers of weights and biases, to the last one as training had them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeheads.export.flatgraph import FlatGraph

__all__ = ["with_trained_constants"]

# {operation: (place of what it computes from among its inputs, the kernel's axis of the channels)}
_LINEAR = {
    "CONV_2D": (0, 0),
    "DEPTHWISE_CONV_2D": (0, 3),
    "FULLY_CONNECTED": (0, 0),
    "TRANSPOSE_CONV": (2, 0),
}
_KERNEL_STEPS = np.float32(127)


def with_trained_constants(float_model: bytes, quantized: bytes) -> bytes:
    """Return the quantized file with the integers that `Quantized...` layers compute with.

    The quantizer divides in other precision than training does: of a million values a few lie so
    near a half that it rounds them to the other side, and each shifts a whole channel.

    Args:
        float_model: the file that was quantized, with the trained weights.
        quantized: the same graph with integer weights and activations.
    """
    source, graph = FlatGraph(float_model), FlatGraph(quantized)
    numbers = source.numbers()
    for operation in graph.operations:
        kernel = int(operation.inputs[1]) if len(operation.inputs) > 1 else -1
        if graph.kind(operation) not in _LINEAR or graph.dtype(kernel) != "int8":
            continue
        twin = _twin(source, numbers.get(graph.name(int(operation.outputs[0])), -1))
        if twin is not None and graph.is_constant(kernel):
            _take(source, twin, graph, operation)
    return graph.to_bytes()


def _twin(source: FlatGraph, output: int) -> Any:
    return next((one for one in source.operations if int(one.outputs[0]) == output), None)


def _take(source: FlatGraph, twin: Any, graph: FlatGraph, operation: Any) -> None:
    kind = graph.kind(operation)
    given, axis = _LINEAR[kind]
    kernel = int(operation.inputs[1])
    weights = source.constant(int(twin.inputs[1]))
    stored = graph.constant(kernel)
    steps = graph.scales(kernel).astype(np.float32)
    if source.kind(twin) != kind or weights.shape != stored.shape:
        return
    shape = [1] * weights.ndim
    shape[axis] = steps.size
    whole = np.round(weights / steps.reshape(shape))
    if np.abs(whole - stored).max(initial=0) > 1:
        return  # Another kernel, or not rounded as training does.
    graph.set_constant(kernel, np.clip(whole, -_KERNEL_STEPS, _KERNEL_STEPS))
    place = given + 1 if kind == "TRANSPOSE_CONV" else 2
    if len(operation.inputs) <= place or operation.inputs[place] < 0:
        return
    bias = int(operation.inputs[place])
    if graph.dtype(bias) != "int32":
        return
    step = np.float32(graph.scales(int(operation.inputs[given]))[0])
    real = source.constant(int(twin.inputs[place]))
    graph.set_constant(bias, np.round(real / (steps * step)))
