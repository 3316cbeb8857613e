"""Values of unlike size that have to share one int8 scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeheads.compression.equalization import channel_ranges
from edgeheads.compression.graph import Call
from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of
from edgeheads.tasks.base import Array

__all__ = ["RULES"]

# A branch whose range is so many times smaller keeps 6 of its 8 bits, or fewer.
_UNLIKE = 4.0
# With one scale for the tensor, a channel below this share of the largest has fewer than 4 steps.
_FEW_STEPS = 4 / 127
_SHARE = 0.05

_BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
}
_KEEPING = (
    "AveragePooling2D",
    "Cropping2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "MaxPooling2D",
    "Permute",
    "Reshape",
    "Resizing",
    "UpSampling2D",
    "ZeroPadding2D",
)

_JOINING = ("Append", "Concatenate", "Dstack", "Hstack", "Stack", "Vstack")

_Interval = tuple[float, float]


def _concatenation(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) not in _JOINING or not call.outputs[0].dtype.startswith("float"):
            continue
        known = {one: _interval(network, network.producer(one)) for one in range_inputs(call)}
        pairs = [(network.producer(one).layer.name, span) for one, span in known.items()]
        widths = [high - low for _, span in pairs if span for low, high in [span]]
        is_unlike = widths and max(widths) > _UNLIKE * min(widths)
        # A probability beside numbers of any size: boxes beside scores.
        is_mixed = widths and min(widths) <= 2 and None in known.values()
        if is_unlike or is_mixed:
            yield call.layer.name, "; ".join(f"{name}: {_text(span)}" for name, span in pairs)


def range_inputs(call: Call) -> list[Any]:
    """Return the tensors that a concatenation joins, each once."""
    return list({id(one): one for one in call.inputs}.values())


def _text(span: _Interval | None) -> str:
    return "any size" if span is None else f"about {span[0]:.3g} to {span[1]:.3g}"


def _interval(network: Network, call: Call) -> _Interval | None:
    """Return what is known of a call's outputs without data; None where nothing is.

    Behind batch normalization, a channel has the mean beta and the deviation gamma: six of them
    on either side hold almost every value (Nagel et al. 2019, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", section 4.2.1).
    """
    kind, activation = kind_of(call.layer), activation_of(call.layer)
    inside: _Interval | None = None
    if kind == "BatchNormalization":
        inside = _of_norm(call.layer)
    elif kind in (*_KEEPING, "Activation", "ReLU") and call.inputs:
        inside = _interval(network, network.producer(call.inputs[0]))
    low, high = inside or (-math.inf, math.inf)
    if activation == "relu":
        low, high = max(0.0, low), max(0.0, high)
    elif activation in _BOUNDS:
        bound = _BOUNDS[activation]
        both = activation == "relu6" and inside is not None
        low, high = (max(bound[0], low), min(bound[1], high)) if both else bound
    elif activation != "linear":
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _of_norm(norm: Any) -> _Interval:
    low, high = _norm_channels(norm)
    return float(low.min()), float(high.max())


def _norm_channels(norm: Any) -> tuple[Array, Array]:
    """Return the least and the largest value of each channel, [channels] each."""
    channels = norm.moving_mean.shape[0]
    gamma = np.asarray(norm.gamma) if norm.scale else np.ones(channels)
    beta = np.asarray(norm.beta) if norm.center else np.zeros(channels)
    spread = 6 * np.abs(gamma)
    return beta - spread, beta + spread


def _activations(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        norm = call.layer
        if kind_of(norm) != "BatchNormalization" or norm.moving_mean.shape[0] < 2:
            continue
        low, high = _norm_channels(norm)
        # One that is clipped behind the normalization has the range that is left of it.
        readers = network.readers(call)
        clips = [_BOUNDS.get(activation_of(one.layer)) for one in readers]
        bound = clips[0] if clips and len(set(clips)) == 1 else None
        if bound is not None:
            low, high = np.clip(low, *bound), np.clip(high, *bound)
        elif readers and all(activation_of(one.layer) == "relu" for one in readers):
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        reach = np.maximum(np.abs(low), np.abs(high))
        if not reach.max() > 0:
            continue
        alive = reach[reach > reach.max() * 1e-6]
        few = int((alive < reach.max() * _FEW_STEPS).sum())
        if few >= max(1, _SHARE * reach.size):
            yield (
                norm.name,
                f"{few} of {reach.size} channels would use fewer than 4 of 127 steps; the largest "
                f"reaches {reach.max():.3g}, the smallest {alive.min():.3g}",
            )


def _weights(network: Network) -> Iterator[tuple[str, str]]:
    if network.device is not None and network.device.quantization.weights == "per-channel":
        return
    for layer in network.folded.layers:
        ranges = channel_ranges(layer)
        if ranges is None or ranges.size < 2 or not ranges.max() > 0:
            continue
        alive = ranges[ranges > ranges.max() * 1e-6]
        few = int((alive < ranges.max() * _FEW_STEPS).sum())
        if few >= max(1, _SHARE * ranges.size):
            yield (
                layer.name,
                f"{few} of {ranges.size} channels would use fewer than 4 of 127 steps; the largest "
                f"weight is {ranges.max() / alive.min():.3g} times that of the smallest channel",
            )


RULES = (
    Rule(
        "unlike-concatenation",
        "Concatenation of branches with unlike ranges",
        "warning",
        "all that is joined shares one scale: the branch with small values keeps few steps of it, "
        "and what it says is lost",
        "outputs of their own, or branches that end in the same bounded activation",
        _concatenation,
    ),
    Rule(
        "activation-spread",
        "Activations whose range differs from channel to channel",
        "warning",
        "a tensor of activations has one scale for all its channels, on every target: the "
        "channels with small values are rounded to nothing",
        "ReLU6 behind the normalization, a weight decay on its gamma, or quantization-aware "
        "training; or keep the layer in float (edgeheads sensitivity --max-drop)",
        _activations,
    ),
    Rule(
        "weight-spread",
        "Weights whose range differs from channel to channel",
        "note",
        "where weights have one scale per tensor, the channels with small weights are rounded to "
        "nothing; with one scale per channel this does no harm",
        "--fix, which equalizes the channels of neighbouring layers; or a scale per channel",
        _weights,
        is_fixable=True,
    ),
)
