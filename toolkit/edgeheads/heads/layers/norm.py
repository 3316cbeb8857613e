"""Normalization and activation."""

from __future__ import annotations

import keras

from edgeheads.errors import unknown_name
from edgeheads.heads.layers.part import Part, Tensor

__all__ = ["NORMALIZATIONS", "activate", "normalize"]

NORMALIZATIONS = ("layer_norm", "batch_norm", "rms_norm", "zero_centered_rms_norm")

_EPSILON = 1e-6


def normalize(part: Part, x: Tensor, kind: str, name: str) -> Tensor:
    """Normalize [B, H, W, C] over its channels (`batch_norm`: over the batch and positions).

    Args:
        kind: "layer_norm" (Ba et al. 2016), "batch_norm" (Ioffe & Szegedy 2015), "rms_norm"
            (Zhang & Sennrich 2019), or "zero_centered_rms_norm": rms_norm scaled by 1 + g, where
            g starts at zero, so that weight decay pulls the scale to one instead of to nothing.
    """
    if kind == "batch_norm":
        return part(keras.layers.BatchNormalization, name)(x)
    if kind == "layer_norm":
        return part(keras.layers.LayerNormalization, name, epsilon=_EPSILON)(x)
    if kind == "rms_norm":
        return part(keras.layers.RMSNormalization, name, epsilon=_EPSILON)(x)
    if kind == "zero_centered_rms_norm":
        unit = keras.ops.rms_normalization(x, axis=-1, epsilon=_EPSILON)
        # A 1x1 depthwise convolution is the stock layer that scales each channel by one weight.
        scale = part(
            keras.layers.DepthwiseConv2D,
            name,
            kernel_size=1,
            use_bias=False,
            depthwise_initializer="zeros",
        )
        return part(keras.layers.Add, f"{name}_add")([unit, scale(unit)])
    raise unknown_name("normalization_type", kind, NORMALIZATIONS)


def activate(part: Part, x: Tensor, kind: str, name: str) -> Tensor:
    """Apply an activation by its Keras name. "relu6" becomes the layer that int8 kernels fuse."""
    if kind == "relu6":
        return part(keras.layers.ReLU, name, max_value=6.0)(x)
    return part(keras.layers.Activation, name, activation=kind)(x)
