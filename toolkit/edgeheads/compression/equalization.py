"""Cross-layer equalization: neighbouring layers share out the range of each channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras
import numpy as np

from edgeheads.compression.fold import (
    fold_batch_norms,
    has_plain_weights,
    laid_open,
    scale_channels,
)
from edgeheads.compression.graph import Call, calls, copy_once, rewrite
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import Array

__all__ = ["Equalization", "channel_ranges", "equalize", "equalized_graph"]

_DEPTHWISE = keras.layers.DepthwiseConv2D
_PLAIN = (keras.layers.Conv2D, keras.layers.Dense)
_TRANSPOSED = (keras.layers.Conv2DTranspose,)

# Layers through which a positive factor of a channel passes unchanged.
_PASSING = (
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
)

# A factor outside would leave activations that int8 cannot hold.
_LARGEST_FACTOR = 1e3

# Images that tell which channels a ReLU6 clips.
_LOOKED_AT = 64

# Values other images have may be so much larger than those that were seen.
_HEADROOM = 1.25

# Noise over signal of what a copy computes: far more than float32's rounding, and less than
# int8's.
_ALIKE = 1e-4


@dataclass(frozen=True)
class Equalization:
    """What `equalize` returns.

    Attributes:
        model: computes what the given one does, to within rounding.
        chains: the layers that were equalized with each other, in order.
        spread_before: the largest range of a channel over the smallest, the median over the
            layers of the chains; dead channels do not count.
        spread_after: the same of `model`.
    """

    model: keras.Model
    chains: tuple[tuple[str, ...], ...]
    spread_before: float
    spread_after: float


def equalize(
    model: keras.Model, rounds: int = 20, images: Callable[[], Iterable[Array]] | None = None
) -> Equalization:
    """Scale the channels between neighbouring layers such that their weights have like ranges.

    With s > 0, W2 relu(W1 x + b1) is W2 s relu(W1 x / s + b1 / s): for each channel the s is
    chosen at which both layers' ranges are the geometric mean of what they were (Nagel et al.
    2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1).
    Only ReLU, and no activation, lie between the layers of a chain: ReLU6 would clip elsewhere.
    With images, it may lie there too, and channels that it clips keep their range; no channel's
    activations get larger than the layer's largest, as a large bias of a small kernel would.
    Layers whose output something else reads, or that several levels share, are left alone.

    Args:
        model: a functional model with batch normalization folded, see `fold_batch_norms`. It is
            not changed.
        rounds: of all pairs of a chain, until the factors settle.
        images: gives inputs [1, H, W, C] like those the model will see; 64 are looked at.

    Raises:
        EdgeheadsError: see `edgeheads.compression.graph.flatten`.
    """
    flat = laid_open(model)
    chains = tuple(_chains(flat, through_clips=images is not None))
    twin = rewrite(flat, copy_once())
    names = [name for chain in chains for name in chain]
    before = _median_spread(twin, names)
    scaled = {name for chain in chains for name in chain[:-1]}
    bounds = {} if images is None else _bounds(flat, scaled, images)
    for chain in chains:
        _settle([twin.get_layer(name) for name in chain], rounds, bounds)
    return Equalization(twin, chains, before, _median_spread(twin, names))


def equalized_graph(
    inputs: Any, outputs: Mapping[str, Any], images: Callable[[], Iterable[Array]]
) -> tuple[Any, dict[str, Any]]:
    """Return part of a Keras graph, its neighbouring layers equalized, for one scale per kernel.

    The steps of a kernel with one scale fit its largest channel, and round small ones to zero.
    What cannot be equalized, for example with layers that cannot be copied, is returned as it is.

    Args:
        inputs: the graph's symbolic image input [B, H, W, C].
        outputs: {name: symbolic tensor}; only what they are computed of counts.
        images: calibration inputs [1, H, W, C].

    Returns:
        The input and the outputs of the new graph, which computes the same on the images.
    """
    graph = keras.Model(inputs, dict(outputs))
    try:
        found = equalize(fold_batch_norms(graph), images=images)
    except (EdgeheadsError, NotImplementedError, TypeError, ValueError):
        # Layers that cannot be made anew of their configuration: Keras raises any of these.
        return inputs, dict(outputs)
    if not found.chains or not _computes_alike(graph, found.model, images):
        return inputs, dict(outputs)
    return found.model.inputs[0], found.model.output


def channel_ranges(layer: Any) -> Array | None:
    """Return the largest |weight| of each output channel; None for a layer without a kernel."""
    is_known = isinstance(layer, (_DEPTHWISE, *_PLAIN, *_TRANSPOSED))
    if not is_known or not has_plain_weights(layer):
        return None
    return _output_ranges(layer, np.asarray(layer.kernel))


def _computes_alike(
    model: keras.Model, twin: keras.Model, images: Callable[[], Iterable[Array]]
) -> bool:
    """Tell whether a copy has all of a model: a custom layer may keep numbers outside weights."""
    for image in islice(images(), 1):
        exact, found = (one(image, training=False) for one in (model, twin))
        for name, array in exact.items():
            expected = keras.ops.convert_to_numpy(array).astype(np.float64)
            noise = np.square(expected - keras.ops.convert_to_numpy(found[name])).sum()
            if not noise <= _ALIKE * np.square(expected).sum():
                return False
    return True


def _bounds(
    model: keras.Model, names: set[str], images: Callable[[], Iterable[Array]]
) -> dict[str, tuple[Array, Array]]:
    """Return {layer of a chain: the least and the largest factor by channel}.

    No channel gets out of the range that the layer's output has: int8 has one for all channels,
    and a small kernel with a large bias would grow beyond. Nor does a ReLU6 clip what it did not,
    or the other way round.
    """
    readers = {id(call.inputs[0]): call.layer for call in calls(model) if call.inputs}
    seen = {call.layer.name: call.outputs[0] for call in calls(model) if call.layer.name in names}
    if not seen:
        return {}
    computed = keras.Model(model.input, seen)
    peaks: dict[str, Array] = {}
    for image in islice(images(), _LOOKED_AT):
        for name, values in computed(image, training=False).items():
            array = keras.ops.convert_to_numpy(values)
            reader = readers.get(id(seen[name]))
            # What a ReLU takes away needs no range.
            sizes = array if isinstance(reader, keras.layers.ReLU) else np.abs(array)
            peak = sizes.reshape(-1, array.shape[-1]).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    found = {}
    for name, peak in peaks.items():
        clip = getattr(readers.get(id(seen[name])), "max_value", None) or math.inf
        free = peak * _HEADROOM < clip
        limit = min(float(peak.max()), clip / _HEADROOM)
        largest = np.ones(peak.size)
        if limit > 0:
            largest[free] = limit / np.maximum(peak[free], limit / _LARGEST_FACTOR)
        found[name] = np.where(free, 1 / _LARGEST_FACTOR, 1.0), largest
    return found


def _chains(model: keras.Model, *, through_clips: bool) -> Iterator[tuple[str, ...]]:
    """Yield the runs of two layers and more that can be equalized with each other."""
    found = tuple(calls(model))
    times: dict[str, int] = {}
    readers: dict[int, list[Call]] = {}
    for call in found:
        times[call.layer.name] = times.get(call.layer.name, 0) + 1
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    outputs = {id(tensor) for tensor in model.outputs}

    def follower(call: Call) -> Call | None:
        """Return the linear layer that is all that reads a call, activations in between."""
        linear = call
        while _is_homogeneous(
            # Right behind the layer, where the images tell what is clipped.
            call.layer,
            through_clips and bool(call.inputs) and call.inputs[0] is linear.outputs[0],
        ):
            tensor = call.outputs[0]
            after = readers.get(id(tensor), [])
            if id(tensor) in outputs or len(after) != 1 or times[after[0].layer.name] > 1:
                return None
            call = after[0]
            if _is_linear(call.layer):
                return call
            if not isinstance(call.layer, (*_PASSING, keras.layers.ReLU, keras.layers.Activation)):
                return None
        return None

    after = {
        call.layer.name: next_call.layer.name
        for call in found
        if _is_linear(call.layer)
        and times[call.layer.name] == 1
        and (next_call := follower(call)) is not None
    }
    starts = [name for name in after if name not in set(after.values())]
    for name in starts:
        chain = [name]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        yield tuple(chain)


def _is_linear(layer: Any) -> bool:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    if not has_plain_weights(layer) or getattr(layer, "groups", 1) != 1:
        return False
    if isinstance(layer, _DEPTHWISE):
        return bool(layer.depth_multiplier == 1)
    return isinstance(layer, _PLAIN)


def _is_homogeneous(layer: Any, through_clips: bool) -> bool:
    """Whether a positive factor of the input is the same factor of the output."""
    if isinstance(layer, keras.layers.ReLU):
        unlimited = through_clips or layer.max_value is None
        return bool(unlimited and layer.threshold == 0 and layer.negative_slope == 0)
    activation = getattr(layer, "activation", keras.activations.linear)
    return activation in (keras.activations.linear, keras.activations.relu)


def _settle(
    chain: list[keras.layers.Layer], rounds: int, bounds: Mapping[str, tuple[Array, Array]]
) -> None:
    weights = [[np.asarray(one, np.float64) for one in layer.get_weights()] for layer in chain]
    totals = [
        np.ones(_output_ranges(layer, own[0]).size)
        for layer, own in zip(chain, weights, strict=True)
    ]
    for _ in range(rounds):
        for index in range(len(chain) - 1):
            first, second = chain[index], chain[index + 1]
            own = _output_ranges(first, weights[index][0])
            other = _input_ranges(second, weights[index + 1][0])
            if bounds and own.max() > 0 and other.max() > 0:
                # A factor of all channels changes no step, and would make a bound mean another.
                own, other = own / own.max(), other / other.max()
            alive = (own > 0) & (other > 0)
            factor = np.ones(own.size)
            # r1 / s = r2 s
            factor[alive] = np.sqrt(other[alive] / own[alive])
            least, largest = bounds.get(first.name, (1 / _LARGEST_FACTOR, _LARGEST_FACTOR))
            factor = np.clip(totals[index] * factor, least, largest) / totals[index]
            totals[index] = totals[index] * factor
            weights[index] = scale_channels(first, weights[index], factor)
            weights[index + 1] = _scale_inputs(second, weights[index + 1], 1 / factor)
    for layer, scaled in zip(chain, weights, strict=True):
        layer.set_weights(scaled)


def _output_ranges(layer: Any, kernel: Array) -> Array:
    if isinstance(layer, _DEPTHWISE):
        return np.abs(kernel).max(axis=(0, 1)).reshape(-1)
    if isinstance(layer, _TRANSPOSED):
        return np.abs(kernel).max(axis=(0, 1, 3))
    return np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))


def _input_ranges(layer: Any, kernel: Array) -> Array:
    if isinstance(layer, _DEPTHWISE):
        return _output_ranges(layer, kernel)
    return np.abs(kernel).max(axis=(*range(kernel.ndim - 2), kernel.ndim - 1))


def _scale_inputs(layer: keras.layers.Layer, weights: list[Array], factor: Array) -> list[Array]:
    # The last but one axis of every kernel here is that of the input channels.
    return [weights[0] * factor[:, None], *weights[1:]]


def _median_spread(model: keras.Model, names: list[str]) -> float:
    spreads = []
    for name in names:
        ranges = channel_ranges(model.get_layer(name))
        if ranges is not None and ranges.max() > 0:
            alive = ranges[ranges > ranges.max() * 1e-6]
            spreads.append(float(alive.max() / alive.min()))
    return float(np.median(spreads)) if spreads else 1.0
