"""What is known of XNNPACK's int8 kernels; needs no TensorFlow."""

from __future__ import annotations

__all__ = ["BETWEEN_FLOAT", "FAST_FLOAT", "WITHOUT_INT8"]

# XNNPACK has no int8 kernel for these and leaves them to the interpreter's own, which take 30
# times as long as float ones. Between a DEQUANTIZE and a QUANTIZE it computes them by one table of
# 256 entries.
WITHOUT_INT8 = frozenset({"HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1", "ABS"})

# Between two of those, these are faster in float where float vectors are as wide as int8 ones.
BETWEEN_FLOAT = frozenset({"DEPTHWISE_CONV_2D", "MUL"})

# What a file that is made fast for named kernels may compute in float.
FAST_FLOAT = {
    "any": frozenset[str](),
    "xnnpack": WITHOUT_INT8,
    "xnnpack-amx": WITHOUT_INT8 | BETWEEN_FLOAT,
}
