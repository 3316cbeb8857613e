"""Normalization that stays in the file as operations of its own."""

from __future__ import annotations

from collections.abc import Iterator

from edgeheads.compression.fold import foldable_norms
from edgeheads.compression.graph import Call
from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of

__all__ = ["RULES"]

_BY_POSITION = (
    "LayerNormalization",
    "RMSNormalization",
    "GroupNormalization",
    "UnitNormalization",
    "LayerNorm",
    "RMSNorm",
    "RmsNorm",
    "Normalize",
)


def _per_position(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        if kind_of(call.layer) in _BY_POSITION:
            shape = "x".join(str(one) for one in call.inputs[0].shape[1:])
            yield call.layer.name, f"computes its statistics over {shape} values for each image"
    yield from _written_out(network)


# What normalization is made of where `keras.ops` write it out.
_ROOTS = ("Rsqrt", "Sqrt")
_DEVIATIONS = ("Norm", "Std")
_MEANS = ("Average", "Mean", "Sum")
_SHIFTS = ("Add", "Cast", "Clip", "Maximum", "Reshape")
_SCALING = ("Divide", "Multiply", "TrueDivide")


def _written_out(network: Network) -> Iterator[tuple[str, str]]:
    """Find x / sqrt(statistic of x + epsilon), at the root."""
    for call in network.calls:
        kind = kind_of(call.layer)
        if kind in _ROOTS:
            statistic = network.producer(call.inputs[0])
            while kind_of(statistic.layer) in _SHIFTS and len(statistic.inputs) == 1:
                statistic = network.producer(statistic.inputs[0])
            if not _is_statistic(network, statistic):
                continue
        elif kind in _DEVIATIONS:
            statistic = call
        else:
            continue
        if any(kind_of(one.layer) in _SCALING for one in _readers(network, call)):
            shape = "x".join(str(one) for one in statistic.inputs[0].shape[1:])
            yield call.layer.name, f"written out; computes its statistics over {shape} values"


def _is_statistic(network: Network, call: Call) -> bool:
    """Whether a call computes a variance, or a mean or sum of squares."""
    kind = kind_of(call.layer)
    if kind in _MEANS:
        square = network.producer(call.inputs[0])
        is_product = kind_of(square.layer) == "Multiply" and len(square.inputs) == 2
        return kind_of(square.layer) in ("Power", "Square") or (
            is_product and square.inputs[0] is square.inputs[1]
        )
    return kind in ("Moments", "Var")


def _readers(network: Network, call: Call) -> list[Call]:
    readers = list(network.readers(call))
    for one in readers:
        if kind_of(one.layer) in _SHIFTS and len(one.inputs) == 1:
            readers += [after for after in network.readers(one) if after not in readers]
    return readers


_LINEAR = ("Conv2D", "Dense", "DepthwiseConv2D", "EinsumDense")
_PASSING = ("Activation", "BatchNormalization", "Dropout", "Identity", "SpatialDropout2D")


def _unfolded(network: Network) -> Iterator[tuple[str, str]]:
    folded = {norm.name for norm in foldable_norms(network.model).values()}
    for call in network.calls:
        if kind_of(call.layer) != "BatchNormalization" or call.layer.name in folded:
            continue
        source = network.producer(call.inputs[0])
        readers = network.readers(source)
        is_last = call.layer.axis in (-1, len(call.inputs[0].shape) - 1)
        if is_last and _is_folded_by_converter(network, source):
            continue
        if len(readers) > 1:
            others = ", ".join(one.layer.name for one in readers if one is not call)
            reason = f"{source.layer.name} in front of it is read by {others}, too"
        elif network.is_output(source):
            reason = f"{source.layer.name} in front of it is an output of the model"
        else:
            ends = activation_of(source.layer)
            end = f", which ends in {ends}" if ends != "linear" else ""
            reason = f"it follows {source.layer.name} ({kind_of(source.layer)}){end}"
        yield call.layer.name, reason


def _is_folded_by_converter(network: Network, source: Call) -> bool:
    """Whether a linear layer is in front, and in between only what changes no value in the file."""
    while not network.is_output(source) and len(network.readers(source)) == 1:
        if kind_of(source.layer) in _LINEAR:
            return activation_of(source.layer) == "linear"
        is_passing = kind_of(source.layer) in _PASSING and activation_of(source.layer) == "linear"
        if not is_passing:
            return False
        source = network.producer(source.inputs[0])
    return False


RULES = (
    Rule(
        "layer-norm",
        "Layer, RMS, group or unit normalization",
        "warning",
        "mean, variance and the inverse root are computed for each image, in a chain of int8 "
        "operations that lose precision and mostly run outside the delegate",
        "batch normalization behind a convolution or dense layer: it becomes part of its weights",
        _per_position,
    ),
    Rule(
        "unfolded-batch-norm",
        "Batch normalization that cannot be folded",
        "warning",
        "it stays a multiplication and an addition over the whole map, with two more roundings; "
        "only behind a linear layer that nothing else reads is it part of the weights",
        "convolution, then batch normalization, then activation, in this order",
        _unfolded,
    ),
)
