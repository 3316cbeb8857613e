"""How far a quantized file is from its float one: the signal-to-noise ratio of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeheads.compression.quantize.calibration import DEFAULT_CALIBRATION, Images, measure_ranges
from edgeheads.compression.quantize.quantizer import quantize_float_model
from edgeheads.compression.quantize.schemes import Scheme, get_scheme
from edgeheads.compression.sensitivity.layers import (
    WEIGHT_AXES,
    Layer,
    find_layers,
    keep_float_for,
)
from edgeheads.export.flatgraph import FlatGraph, Probe
from edgeheads.tasks.base import Array

__all__ = [
    "LayerError",
    "analyse",
    "output_sqnr",
    "sqnr",
    "tensor_sqnr",
    "weight_sqnr",
]


@dataclass(frozen=True)
class LayerError:
    """What int8 does to one layer; decibels, infinite where nothing is lost, NaN where unknown.

    Attributes:
        layer: which.
        accumulated: of the layer's output in the int8 file: what it and all before it cost.
        isolated: of the file's outputs where this layer alone is int8, and inputs and outputs are
            float.
        weights: of the layer's stored weights.
        drop: by how much the metric is worse where this layer alone is int8; None: not scored.
    """

    layer: Layer
    accumulated: float
    isolated: float
    weights: float
    drop: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; None stands for an infinite or unknown ratio."""
        values = {**asdict(self.layer), **asdict(self)}
        del values["layer"]
        return {
            key: None if isinstance(one, float) and not math.isfinite(one) else one
            for key, one in values.items()
        }


class _Ratio:
    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def see(self, reference: Array, value: Array) -> None:
        exact = reference.astype(np.float64)
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(exact - value).sum())

    def decibels(self) -> float:
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


def sqnr(reference: Array, value: Array) -> float:
    """Return the signal-to-quantization-noise ratio in dB: 10 log10(sum r^2 / sum (r - v)^2)."""
    ratio = _Ratio()
    ratio.see(reference, value)
    return ratio.decibels()


def tensor_sqnr(
    float_model: bytes, quantized: bytes, images: Images, names: Sequence[str]
) -> dict[str, float]:
    """Return the SQNR of tensors of both files, over all images.

    Tensors that the quantizer fused away are left out.
    """
    exact, rough = FlatGraph(float_model), FlatGraph(quantized)
    # A constant may be called like an activation; only what is computed can be compared.
    there = {rough.name(tensor): tensor for tensor in rough.activations()}
    here = {exact.name(tensor): tensor for tensor in exact.activations()}
    pairs = {name: (here[name], there[name]) for name in names if name in here and name in there}
    ratios = _ratios(exact, rough, images, list(pairs.values()))
    return dict(zip(pairs, ratios, strict=True))


def output_sqnr(float_model: bytes, quantized: bytes, images: Images) -> float:
    """Return the SQNR of the output that lost most."""
    exact, rough = FlatGraph(float_model), FlatGraph(quantized)
    return min(_ratios(exact, rough, images, list(zip(exact.outputs, rough.outputs, strict=True))))


def weight_sqnr(float_model: bytes, quantized: bytes) -> dict[str, float]:
    """Return {layer: SQNR of its weights}; infinite for those that stayed float."""
    exact, rough = FlatGraph(float_model), FlatGraph(quantized)
    stored = {
        rough.name(int(one.outputs[0])): one
        for one in rough.operations
        if rough.kind(one) in WEIGHT_AXES
    }
    found = {}
    for one in exact.operations:
        name = exact.name(int(one.outputs[0]))
        if exact.kind(one) in WEIGHT_AXES and name in stored:
            axis = WEIGHT_AXES[exact.kind(one)]
            weights = _real_weights(rough, int(stored[name].inputs[1]), axis)
            found[name] = sqnr(exact.constant(int(one.inputs[1])), weights)
    return found


def analyse(
    float_model: bytes,
    images: Images,
    *,
    scheme: Scheme | None = None,
    calibration: str = DEFAULT_CALIBRATION,
    per_channel: bool = True,
    drop_of: Callable[[bytes], float] | None = None,
    on_layer: Callable[[Layer], None] | None = None,
) -> list[LayerError]:
    """Return what int8 does to each layer, the most sensitive first.

    Each layer is quantized alone once, so it takes about a second a layer.

    Args:
        float_model: of `convert_to_float_tflite`.
        images: calibration inputs; the errors are measured on them, too.
        scheme: one with int8 activations; default: int8.
        calibration: how ranges are measured; a name from CALIBRATIONS.
        per_channel: give each channel of the weights a scale of its own.
        drop_of: by how much a file's metric is worse than the float model's.
        on_layer: called after each layer.

    Raises:
        EdgeheadsError: images that cannot be used.
        RuntimeFailureError: the quantizer refuses the graph.
    """
    scheme = scheme or get_scheme("int8")
    layers = find_layers(float_model)
    names = [layer.name for layer in layers]
    ranges = measure_ranges(float_model, images, calibration)
    whole = quantize_float_model(float_model, ranges, scheme, per_channel=per_channel)
    accumulated = tensor_sqnr(float_model, whole, images, names)
    weights = weight_sqnr(float_model, whole)
    found = []
    for layer in layers:
        others = keep_float_for(float_model, [name for name in names if name != layer.name])
        # Rounding what goes in and comes out would hide what a good layer costs.
        alone = quantize_float_model(
            float_model,
            ranges,
            get_scheme("int8-float-io"),
            per_channel=per_channel,
            keep_float=others,
        )
        found.append(
            LayerError(
                layer,
                accumulated.get(layer.name, math.nan),
                output_sqnr(float_model, alone, images),
                weights.get(layer.name, math.nan),
                drop_of(alone) if drop_of else None,
            )
        )
        if on_layer:
            on_layer(layer)
    return sorted(found, key=lambda one: (-(one.drop or 0.0), one.isolated))


def _ratios(
    exact: FlatGraph, rough: FlatGraph, images: Images, pairs: Sequence[tuple[int, int]]
) -> list[float]:
    ratios = [_Ratio() for _ in pairs]
    left = Probe(exact, list(dict.fromkeys(one for one, _ in pairs)))
    right = Probe(rough, list(dict.fromkeys(one for _, one in pairs)))
    for reference, value in zip(left.run(images()), right.run(images()), strict=True):
        for ratio, (here, there) in zip(ratios, pairs, strict=True):
            ratio.see(reference[here], rough.dequantize(there, value[there]))
    return [ratio.decibels() for ratio in ratios]


def _real_weights(graph: FlatGraph, tensor: int, axis: int) -> Array:
    stored, scales = graph.constant(tensor), graph.scales(tensor)
    if not scales.size:
        return stored
    shape = [1] * stored.ndim
    shape[axis] = scales.size
    real: Array = stored * scales.reshape(shape)
    return real
