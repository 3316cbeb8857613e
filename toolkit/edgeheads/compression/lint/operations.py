"""Operations that the named device leaves to its CPU, told from the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of
from edgeheads.targets.rules import load_rules

__all__ = ["RULES", "lite_operations"]

# What the converter makes of a layer or an operation that is certain to stay one of its own kind.
_BY_CLASS = {
    "Add": ("ADD",),
    "AveragePooling2D": ("AVERAGE_POOL_2D",),
    "Concatenate": ("CONCATENATION",),
    "Conv2D": ("CONV_2D",),
    "Conv2DTranspose": ("TRANSPOSE_CONV",),
    "Dense": ("FULLY_CONNECTED",),
    "DepthwiseConv2D": ("DEPTHWISE_CONV_2D",),
    "Exp": ("EXP",),
    "FloorDivide": ("FLOOR_DIV",),
    "GlobalAveragePooling2D": ("MEAN",),
    "GlobalMaxPooling2D": ("REDUCE_MAX",),
    "LayerNormalization": ("MEAN", "RSQRT", "SQUARED_DIFFERENCE"),
    "LeakyReLU": ("LEAKY_RELU",),
    "Matmul": ("BATCH_MATMUL",),
    "MaxPooling2D": ("MAX_POOL_2D",),
    "MultiHeadAttention": ("BATCH_MATMUL", "SOFTMAX"),
    "Multiply": ("MUL",),
    "PReLU": ("PRELU",),
    "RMSNormalization": ("MEAN", "RSQRT"),
    "SeparableConv2D": ("DEPTHWISE_CONV_2D", "CONV_2D"),
    "TakeAlongAxis": ("GATHER_ND",),
    "TopK": ("TOPK_V2",),
    "ZeroPadding2D": ("PAD",),
}
_BY_ACTIVATION = {
    "elu": "ELU",
    "gelu": "GELU",
    "hard_silu": "HARD_SWISH",
    "hard_swish": "HARD_SWISH",
    "leaky_relu": "LEAKY_RELU",
    "sigmoid": "LOGISTIC",
    "silu": "LOGISTIC",
    "softmax": "SOFTMAX",
    "swish": "LOGISTIC",
    "tanh": "TANH",
}


def lite_operations(layer: Any) -> tuple[str, ...]:
    """Return the operations of a .tflite file that a layer is sure to become."""
    made = _BY_CLASS.get(kind_of(layer), ())
    if kind_of(layer) == "UpSampling2D":
        # Keras repeats pixels one axis after the other.
        made = ("TILE",) if layer.interpolation == "nearest" else ("RESIZE_BILINEAR",)
    activation = _BY_ACTIVATION.get(activation_of(layer))
    return (*made, activation) if activation else made


def _left(network: Network) -> Iterator[tuple[str, str]]:
    if network.device is None or not network.device.op_rules:
        return
    rules = load_rules(network.device.op_rules)
    for call in network.calls:
        left = [one for one in lite_operations(call.layer) if one not in rules.ops]
        if left:
            after = ", and all that depends on it with it" if rules.single_partition else ""
            yield (
                call.layer.name,
                f"{rules.title} has no {' or '.join(left)}: the CPU runs it{after}",
            )


RULES = (
    Rule(
        "device-operation",
        "Operation the device does not run",
        "warning",
        "every change between accelerator and CPU copies the tensor, and the CPU's part is slow",
        "an operation from the device's list (devices/rules/), or the layer outside the model",
        _left,
        is_int8=False,
    ),
)
