"""What is known of XNNPACK's int8 kernels; needs no TensorFlow."""

from __future__ import annotations

__all__ = ["WITHOUT_INT8"]

# XNNPACK has no int8 kernel for these and leaves them to the interpreter's own, which take 30
# times as long as float ones. Between a DEQUANTIZE and a QUANTIZE it computes them by one table of
# 256 entries.
WITHOUT_INT8 = frozenset({"HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1", "ABS"})
