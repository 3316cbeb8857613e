"""How channels go through each kind of layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from edgeheads.compression.graph import Call
from edgeheads.compression.prune.channels import Follower

__all__ = ["follow_call"]

_MIXING = "mixes channels"

# Activations that compute each number by itself.
_ELEMENTWISE = {
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "swish",
    "tanh",
}


def follow_call(follower: Follower, call: Call) -> None:
    """Say what the channels of a call's outputs are.

    Only layers and operations of Keras' own in the table are followed. Channels around anything
    else stay as they are.
    """
    kind = type(call.layer)
    rules = _LAYERS if isinstance(call.layer, keras.layers.Layer) else _OPERATIONS
    rule = rules.get(kind.__name__) if kind.__module__.partition(".")[0] == "keras" else None
    if isinstance(call.layer, keras.layers.InputLayer):
        for tensor in call.outputs:
            follower.fixed(tensor, "an input of the model")
    elif rule is None:
        follower.opaque(call, f"{kind.__name__} is not followed")
    elif any(None in tensor.shape[-1:] or len(tensor.shape) < 2 for tensor in call.inputs):
        follower.opaque(call, "its number of channels is not known")
    elif getattr(call.layer, "data_format", "channels_last") == "channels_first":
        follower.opaque(call, "channels come first")
    elif getattr(call.layer, "lora_enabled", False) or getattr(
        call.layer, "quantization_mode", None
    ):
        follower.opaque(call, "its kernel is quantized, or has a low-rank adapter")
    else:
        rule(follower, call)


def _output(follower: Follower, call: Call, labels: Any) -> None:
    """Set the output of a layer that may have an activation of its own."""
    [tensor] = call.outputs
    follower.set(tensor, labels)
    if not _computes_each(getattr(call.layer, "activation", None)):
        reason = f"{call.layer.name}: its activation {_MIXING}"
        follower.protected.setdefault(call.layer.name, f"its activation {_MIXING}")
        follower.fix(labels, reason)
        follower.fixed(tensor, reason)  # perhaps not as many: glu returns half


def _computes_each(activation: Any) -> bool:
    if activation is None:
        return True
    name = getattr(activation, "__name__", type(activation).__name__)
    return name in _ELEMENTWISE or isinstance(activation, (keras.layers.ReLU,))


def _convolution(follower: Follower, call: Call) -> None:
    layer = call.layer
    taken, made = follower.of(call.inputs[0]), follower.made(layer, layer.kernel, -1)
    if layer.groups == 1:
        follower.attach(layer, layer.kernel, -2, taken)
    else:
        # A group goes as a whole: then the others are as before.
        of_inputs = taken.reshape(layer.groups, -1)
        of_outputs = made.reshape(layer.groups, -1)
        for one in (of_inputs, of_outputs):
            for column in one.T:
                follower.unify(of_inputs[:, 0], column)
    _bias(follower, call, made)
    _output(follower, call, made)


def _transposed(follower: Follower, call: Call) -> None:
    layer = call.layer
    made = follower.made(layer, layer.kernel, -2)
    follower.attach(layer, layer.kernel, -1, follower.of(call.inputs[0]))
    _bias(follower, call, made)
    _output(follower, call, made)


def _depthwise(follower: Follower, call: Call) -> None:
    layer = call.layer
    taken = follower.of(call.inputs[0])
    follower.made_of(layer, layer.kernel, -2, taken)
    made = np.repeat(taken, layer.depth_multiplier)
    _bias(follower, call, made)
    _output(follower, call, made)


def _separable(follower: Follower, call: Call) -> None:
    layer = call.layer
    taken = follower.of(call.inputs[0])
    follower.attach(layer, layer.depthwise_kernel, -2, taken)
    follower.attach(layer, layer.pointwise_kernel, -2, np.repeat(taken, layer.depth_multiplier))
    made = follower.made(layer, layer.pointwise_kernel, -1)
    _bias(follower, call, made)
    _output(follower, call, made)


def _dense(follower: Follower, call: Call) -> None:
    layer = call.layer
    made = follower.made(layer, layer.kernel, -1)
    follower.attach(layer, layer.kernel, -2, follower.of(call.inputs[0]))
    _bias(follower, call, made)
    _output(follower, call, made)


def _bias(follower: Follower, call: Call, made: Any) -> None:
    if call.layer.use_bias:
        follower.attach(call.layer, call.layer.bias, 0, made)


def _batch_norm(follower: Follower, call: Call) -> None:
    layer, [tensor] = call.layer, call.inputs
    if layer.axis not in (-1, len(tensor.shape) - 1):
        follower.opaque(call, "it does not normalize the last axis")
        return
    for variable in layer.weights:
        follower.attach(layer, variable, 0, follower.of(tensor))
    _same(follower, call)


def _prelu(follower: Follower, call: Call) -> None:
    layer, labels = call.layer, follower.of(call.inputs[0])
    if layer.alpha.shape[-1] == len(labels):
        follower.attach(layer, layer.alpha, -1, labels)
    _same(follower, call)


def _same(follower: Follower, call: Call) -> None:
    """The channels of the one input."""
    follower.set(call.outputs[0], follower.of(call.inputs[0]))


def _operation(follower: Follower, call: Call) -> None:
    """An operation of numbers one by one, on one tensor or several."""
    if _has_constants(call):
        follower.opaque(call, "it holds constants that are no single number")
    else:
        _merge(follower, call)


def _merge(follower: Follower, call: Call) -> None:
    labels = [follower.of(tensor) for tensor in call.inputs]
    widest = max(labels, key=len)
    for one in labels:
        if len(one) == len(widest):
            follower.unify(widest, one)
        else:  # one channel for all: there is no other to remove
            follower.fix(one, f"{call.layer.name}: spread over all channels")
    if len(call.outputs) != 1 or call.outputs[0].shape[-1] != len(widest):
        follower.opaque(call, "its output has other channels than its inputs")
        return
    follower.set(call.outputs[0], widest)


def _has_constants(call: Call) -> bool:
    values = [*call.args, *call.kwargs.values(), *vars(call.layer).values()]
    return any(
        not isinstance(one, keras.KerasTensor)
        and getattr(one, "shape", None) is not None
        and math.prod(tuple(one.shape)) != 1  # of a backend's tensor it is no tuple
        for one in keras.tree.flatten(values)
    )


def _concatenate(follower: Follower, call: Call) -> None:
    rank = len(call.outputs[0].shape)
    if call.layer.axis % rank == rank - 1:
        labels = np.concatenate([follower.of(tensor) for tensor in call.inputs])
        follower.set(call.outputs[0], labels)
    else:
        _merge(follower, call)


def _reshape(follower: Follower, call: Call) -> None:
    """Channels that stay side by side, once or several times over."""
    labels, width = follower.of(call.inputs[0]), call.outputs[0].shape[-1]
    if not width or not len(labels) or width % len(labels):
        follower.opaque(call, "it divides channels")
    else:
        follower.set(call.outputs[0], np.tile(labels, width // len(labels)))


def _permute(follower: Follower, call: Call) -> None:
    if call.layer.dims[-1] == len(call.layer.dims):
        _same(follower, call)
    else:
        follower.opaque(call, "it moves channels to another axis")


def _softmax(follower: Follower, call: Call) -> None:
    follower.opaque(call, _MIXING)


def _rescaling(follower: Follower, call: Call) -> None:
    if np.size(call.layer.scale) == 1 and np.size(call.layer.offset) == 1:
        _same(follower, call)
    else:
        follower.opaque(call, "it has a number for each channel")


def _activation(follower: Follower, call: Call) -> None:
    _output(follower, call, follower.of(call.inputs[0]))


def _reduction(follower: Follower, call: Call) -> None:
    """A mean or the like over positions; not over channels."""
    axes, rank = call.layer.axis, len(call.inputs[0].shape)
    axes = range(rank) if axes is None else axes if isinstance(axes, (list, tuple)) else [axes]
    if any(axis % rank in (0, rank - 1) for axis in axes):
        follower.opaque(call, _MIXING)
    else:
        _same(follower, call)


_Rule = Callable[[Follower, Call], None]

_POSITIONS = [
    "ActivityRegularization",
    "AlphaDropout",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "Cropping1D",
    "Cropping2D",
    "Dropout",
    "ELU",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "Identity",
    "LeakyReLU",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "ReLU",
    "Resizing",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
]

_LAYERS: dict[str, _Rule] = {
    **dict.fromkeys(_POSITIONS, _same),
    **dict.fromkeys(["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"], _merge),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Activation": _activation,
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Flatten": _reshape,
    "PReLU": _prelu,
    "Permute": _permute,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Softmax": _softmax,
}

# What `x + y` and functions of `keras.ops` leave in a graph.
_OPERATIONS: dict[str, _Rule] = {
    **dict.fromkeys(
        [
            "Abs",
            "Absolute",
            "Add",
            "Cast",
            "Clip",
            "Divide",
            "Elu",
            "Exp",
            "Gelu",
            "HardSigmoid",
            "HardSilu",
            "HardTanh",
            "LeakyRelu",
            "Log",
            "Maximum",
            "Minimum",
            "Mish",
            "Multiply",
            "Negative",
            "Power",
            "Relu",
            "Relu6",
            "Selu",
            "Sigmoid",
            "Silu",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Square",
            "Subtract",
            "Tanh",
            "TrueDivide",
        ],
        _operation,
    ),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), _reduction),
    "Concatenate": _concatenate,
    "Resize": _same,
    "Softmax": _softmax,
}
