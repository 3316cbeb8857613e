"""Removing the constant part of what quantization adds to each channel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.quantize.calibration import Images
from edgeheads.export.flatgraph import FlatGraph, Probe
from edgeheads.tasks.base import Array

__all__ = ["correct_biases"]

_LINEAR = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}

# Enough for the mean of a channel, over all its places; more only costs time.
_MOST_IMAGES = 32
_MOST_BYTES = 64 << 20

# Behind a ReLU a bias moves only the values that pass. Where few do, the error is divided by no
# less than this, or one noisy mean would throw the channel far off.
_LEAST_PASSING = 0.25

_PerChannel = NDArray[np.float64]


def correct_biases(float_model: bytes, quantized: bytes, images: Images) -> bytes:
    """Return the quantized file with biases that give each channel the float model's mean.

    Rounded weights, and steps that are coarse against a narrow layer's values, shift the mean of
    each channel; the layers behind see a shift on every pixel, and add theirs. Layer by layer, in
    computing order and with all earlier ones corrected, the difference of the means is measured
    behind the layer's activation, and taken out of its integer bias. The file's size and speed
    stay what they were.

    Args:
        float_model: the .tflite file that was quantized.
        quantized: the same graph with integer activations. Layers that stayed float, or have no
            bias of their own, are left alone.
        images: calibration inputs; up to 32, evenly spread, are kept in memory and used.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
        Correction", section 4.2, empirical; Finkelstein et al. 2019, "Fighting Quantization Bias
        With Bias".
    """
    reference, graph = FlatGraph(float_model), FlatGraph(quantized)
    numbers = reference.numbers()
    layers = {
        place: (int(operation.outputs[0]), int(operation.inputs[2]))
        for place, operation in enumerate(graph.operations)
        if _has_integer_bias(graph, operation) and graph.name(operation.outputs[0]) in numbers
    }
    kept = _spread(images)
    if not layers or not kept:
        return quantized
    twins = {output: numbers[graph.name(output)] for output, _ in layers.values()}
    wanted = _means(reference, Probe(reference, list(twins.values())), kept)
    for place, (output, bias) in layers.items():
        probe = Probe(graph, [output], operations=place + 1)
        found, passing = _mean_and_passing(graph, probe, output, kept)
        stored = graph.constant(bias)
        if found.shape != stored.shape:
            continue
        if not graph.operations[place].builtinOptions.fusedActivationFunction:
            passing = np.ones_like(found)
        error = wanted[twins[output]] - found
        steps = np.round(error / np.maximum(passing, _LEAST_PASSING) / graph.scales(bias))
        limits = np.iinfo(stored.dtype)
        graph.set_constant(bias, np.clip(stored + steps, limits.min, limits.max))
    return graph.to_bytes()


def _has_integer_bias(graph: FlatGraph, operation: Any) -> bool:
    return (
        graph.kind(operation) in _LINEAR
        and len(operation.inputs) > 2
        and operation.inputs[2] >= 0
        and graph.dtype(int(operation.inputs[2])) in ("int32", "int64")
        and graph.dtype(int(operation.outputs[0])) in ("int8", "int16")
    )


def _spread(images: Images) -> list[Array]:
    """Return some of the images, evenly spread over all of them."""
    count, size = 0, 1
    for image in images():
        count, size = count + 1, image.nbytes
    most = max(1, min(_MOST_IMAGES, _MOST_BYTES // size))
    return list(islice(images(), 0, None, max(1, -(-count // most))))


def _means(graph: FlatGraph, probe: Probe, images: Sequence[Array]) -> dict[int, _PerChannel]:
    """Return the real mean [C] of each channel of what the probe sees."""
    sums: dict[int, _PerChannel] = {}
    for values in probe.run(images):
        for tensor, array in values.items():
            mean = _channels(array).mean(axis=0, dtype=np.float64)
            sums[tensor] = sums.get(tensor, np.zeros_like(mean)) + mean
    return {tensor: graph.dequantize(tensor, total / len(images)) for tensor, total in sums.items()}


def _mean_and_passing(
    graph: FlatGraph, probe: Probe, tensor: int, images: Sequence[Array]
) -> tuple[_PerChannel, _PerChannel]:
    """Return the real mean [C] of an integer tensor, and the share of it that is not cut off."""
    limits = np.iinfo(graph.dtype(tensor))
    total = passing = np.zeros(graph.shape(tensor)[-1])
    for values in probe.run(images):
        array = _channels(values[tensor])
        total = total + array.mean(axis=0, dtype=np.float64)
        inside = (array > limits.min) & (array < limits.max)
        passing = passing + inside.mean(axis=0)
    return graph.dequantize(tensor, total / len(images)), passing / len(images)


def _channels(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])
