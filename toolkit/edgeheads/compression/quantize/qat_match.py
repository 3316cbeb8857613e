"""Which tensor of a Keras graph is which of its .tflite file, and which of these share a scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from edgeheads.compression.graph import OutputsOf, calls, name_outputs
from edgeheads.compression.quantize.calibration import Range, pass_on
from edgeheads.errors import EdgeheadsError
from edgeheads.export.flatgraph import FlatGraph, Probe
from edgeheads.export.tflite import convert_to_float_tflite
from edgeheads.tasks.base import Array

__all__ = ["float_file", "match_tensors", "scale_groups", "share_ranges"]

# Both compute in float32; they differ by the order of sums.
_TOLERANCE = 1e-4

# These write a range of their own into the file, whatever was measured.
_FIXED = {
    "LOGISTIC": Range(0.0, 255 / 256),
    "SOFTMAX": Range(0.0, 255 / 256),
    "TANH": Range(-1.0, 127 / 128),
}


def float_file(model: keras.Model, outputs_of: OutputsOf | None = None) -> bytes:
    """Return the float32 .tflite file of a functional model with one input.

    Args:
        model: the model.
        outputs_of: what of it the file returns; None: all that the model does.

    Raises:
        EdgeheadsError: more than one input, or a size that is not fixed.
        RuntimeFailureError: the converter refuses the graph.
    """
    if len(model.inputs) != 1:
        raise EdgeheadsError(
            f"quantization-aware training needs a model with one input, received {model.name!r} "
            f"with {len(model.inputs)}"
        )
    return convert_to_float_tflite(model.inputs[0], (outputs_of or name_outputs)(model))


def match_tensors(
    model: keras.Model, float_model: bytes, image: Array, outputs_of: OutputsOf | None = None
) -> dict[int, int]:
    """Return {number of a tensor of the file: place in `calls(model)` of what computes it}.

    Tensors are known by their values: the converter fuses layers and rewrites operations, so that
    names do not tell before or after which activation a tensor stands. What only one of the two
    computes, such as a convolution's output in front of the ReLU that is fused into it, has no
    entry.

    Args:
        model: a functional model.
        float_model: of `float_file`, with the same weights.
        image: an input [1, H, W, C] on which the tensors are compared.
        outputs_of: what of the model the file was made of.
    """
    graph = FlatGraph(float_model)
    # Behind the file's outputs stands more that has their values.
    part = keras.Model(model.inputs, (outputs_of or name_outputs)(model))
    inside = {id(tensor) for call in calls(part) for tensor in call.outputs}
    places, tensors = [], []
    for place, call in enumerate(calls(model)):
        # A dropout hands on what was matched in front of it.
        is_dropout = isinstance(call.layer, keras.layers.Dropout)
        if len(call.outputs) == 1 and id(call.outputs[0]) in inside and not is_dropout:
            places.append(place)
            tensors.append(call.outputs[0])
    # Keras gives a model's own input back only behind an operation.
    computed = keras.Model(model.inputs, [keras.ops.copy(tensor) for tensor in tensors])
    arrays = computed([image], training=False)
    values = {
        place: keras.ops.convert_to_numpy(array).astype(np.float32)
        for place, array in zip(places, arrays, strict=True)
    }
    seen = [tensor for tensor in graph.activations() if graph.dtype(tensor) == "float32"]
    [stored] = Probe(graph, seen).run([image])
    found: dict[int, int] = {}
    # From the end: of a layer and an activation that changes nothing, the activation is meant.
    for tensor in reversed(seen):
        for place in reversed(places):
            if place not in found.values() and _alike(stored[tensor], values[place]):
                found[tensor] = place
                break
    return found


def scale_groups(graph: FlatGraph, tensors: Iterable[int]) -> dict[int, int]:
    """Return {tensor: the first tensor of those that have one scale with it}.

    Operations that pass values on keep their input's scale, and a concatenation's inputs have that
    of its output.
    """
    head = {tensor: tensor for tensor in tensors}

    def first(tensor: int) -> int:
        while head[tensor] != tensor:
            tensor = head[tensor]
        return tensor

    def join(one: int, other: int) -> None:
        low, high = sorted((first(one), first(other)))
        head[high] = low

    for operation in graph.operations:
        outputs = [int(tensor) for tensor in operation.outputs if int(tensor) in head]
        inputs = [int(tensor) for tensor in operation.inputs if int(tensor) in head]
        kept = pass_on(graph, {tensor: Range(0.0, 1.0) for tensor in [*inputs, *outputs]})
        if graph.kind(operation) == "CONCATENATION" or set(outputs) & kept:
            for tensor in inputs:
                for output in outputs:
                    join(tensor, output)
    return {tensor: first(tensor) for tensor in head}


def share_ranges(
    graph: FlatGraph, ranges: Mapping[int, Range]
) -> tuple[dict[int, Range], dict[int, int], set[int]]:
    """Return the ranges as a quantizer uses them, the groups, and those that are given by the kind.

    Args:
        graph: the float32 file.
        ranges: what was measured.

    Returns:
        {tensor: range}, alike within a group; {tensor: group}; the groups with a fixed range.
    """
    groups = scale_groups(graph, ranges)
    shared: dict[int, Range] = {}
    for tensor, group in groups.items():
        one, other = ranges[tensor], shared.get(group, ranges[tensor])
        shared[group] = Range(min(one.low, other.low), max(one.high, other.high))
    fixed = set()
    for operation in graph.operations:
        own = _FIXED.get(graph.kind(operation))
        if own is not None and int(operation.outputs[0]) in groups:
            group = groups[int(operation.outputs[0])]
            shared[group] = own
            fixed.add(group)
    return {tensor: shared[group] for tensor, group in groups.items()}, groups, fixed


def _alike(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    largest = float(np.abs(other).max(initial=0.0))
    # A tensor of zeros is like any other of them.
    return largest > 0 and float(np.abs(one - other).max()) <= _TOLERANCE * largest
