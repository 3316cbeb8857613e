"""Operations that the named device leaves to its CPU, told from the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeheads.compression.graph import Call
from edgeheads.compression.lint.activations import activation_of
from edgeheads.compression.lint.rule import Network, Rule, kind_of
from edgeheads.targets.rules import load_rules

__all__ = ["RULES", "lite_operations"]

# What the converter makes of a layer or an operation that is certain to stay one of its own kind.
_BY_CLASS = {
    "Add": ("ADD",),
    "AveragePooling2D": ("AVERAGE_POOL_2D",),
    "Ceil": ("CEIL",),
    "Concatenate": ("CONCATENATION",),
    "Conv2D": ("CONV_2D",),
    "Conv2DTranspose": ("TRANSPOSE_CONV",),
    "Cos": ("COS",),
    "Cumsum": ("CUMSUM",),
    "Dense": ("FULLY_CONNECTED",),
    "DepthwiseConv2D": ("DEPTHWISE_CONV_2D",),
    "Exp": ("EXP",),
    "Floor": ("FLOOR",),
    "FloorDivide": ("FLOOR_DIV",),
    "ForiLoop": ("WHILE",),
    "GlobalAveragePooling2D": ("MEAN",),
    "GlobalMaxPooling2D": ("REDUCE_MAX",),
    "LayerNormalization": ("MEAN", "NEG", "RSQRT", "SQUARED_DIFFERENCE"),
    "LeakyReLU": ("LEAKY_RELU",),
    "Map": ("WHILE",),
    "MaxPooling2D": ("MAX_POOL_2D",),
    "Mod": ("FLOOR_MOD",),
    "MultiHeadAttention": ("BATCH_MATMUL", "SOFTMAX"),
    "Multiply": ("MUL",),
    "Negative": ("NEG",),
    "PReLU": ("PRELU",),
    "RMSNormalization": ("MEAN", "RSQRT", "SQUARE"),
    "Round": ("ROUND",),
    "Scan": ("WHILE",),
    "SeparableConv2D": ("DEPTHWISE_CONV_2D", "CONV_2D"),
    "Sign": ("SIGN",),
    "Sin": ("SIN",),
    "Sort": ("NEG", "TOPK_V2"),
    "Square": ("SQUARE",),
    "Stack": ("PACK",),
    "TopK": ("TOPK_V2",),
    "WhileLoop": ("WHILE",),
    "ZeroPadding2D": ("PAD",),
}
_RECURRENT = (
    *("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"),
    *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
)
# Operations that the converter's quantizer knows no int8 form of.
_FLOAT_ONLY = frozenset(
    {
        *("CEIL", "COS", "CUMSUM", "ELU", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "NEG", "ROUND"),
        *("SIGN", "SIN", "SQUARE", "WHILE"),
    }
)
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


def lite_operations(call: Call) -> tuple[str, ...]:
    """Return the operations of a .tflite file that a layer is sure to become."""
    layer, kind = call.layer, kind_of(call.layer)
    if kind in _RECURRENT and not _is_unrolled(layer):
        return ("WHILE",)
    made = _BY_CLASS.get(kind, ())
    if kind == "UpSampling2D":
        # Keras repeats pixels one axis after the other.
        made = ("TILE",) if layer.interpolation == "nearest" else ("RESIZE_BILINEAR",)
    elif kind == "Matmul" and len(call.inputs) == 2:
        made = ("BATCH_MATMUL",)
    elif kind.startswith("Adaptive"):
        made = ("GATHER",)
    activation = _BY_ACTIVATION.get(activation_of(layer))
    return (*made, activation) if activation else made


def _is_unrolled(layer: Any) -> bool:
    return bool(getattr(layer, "forward_layer", layer).unroll)


def _left(network: Network) -> Iterator[tuple[str, str]]:
    if network.device is None or not network.device.op_rules:
        return
    rules = load_rules(network.device.op_rules)
    for call in network.calls:
        left = [one for one in lite_operations(call) if one not in rules.ops]
        if left:
            after = ", and all that depends on it with it" if rules.single_partition else ""
            yield (
                call.layer.name,
                f"{rules.title} has no {' or '.join(left)}: the CPU runs it{after}",
            )


def _float(network: Network) -> Iterator[tuple[str, str]]:
    for call in network.calls:
        kept = [one for one in lite_operations(call) if one in _FLOAT_ONLY]
        if kept and kind_of(call.layer) in _RECURRENT:
            yield call.layer.name, "a loop over the steps, with its weights; unroll=True has none"
        elif kept:
            yield call.layer.name, f"{kept[0]} has no int8 form"


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
    Rule(
        "float-operation",
        "Operation that stays float",
        "warning",
        "it stands between a DEQUANTIZE and a QUANTIZE in the int8 file: a device that computes in "
        "integers only leaves it to its CPU, and weights inside it take four bytes each",
        "products, sums, ReLU and the other operations that int8 has: x * x for a square, 0 - x "
        "for -x; unroll=True, or convolutions along the steps, for a recurrent layer",
        _float,
    ),
)
