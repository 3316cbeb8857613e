"""Convolution blocks and resizing."""

from __future__ import annotations

import keras

from edgeheads.heads.layers.norm import activate, normalize
from edgeheads.heads.layers.part import Part, Tensor, prefixed

__all__ = ["conv_block", "pointwise", "resize_to", "upsample"]


def pointwise(part: Part, x: Tensor, channels: int, name: str, *, normalization: str) -> Tensor:
    """A 1x1 convolution and its normalization, without an activation."""
    # The normalization has a bias of its own, except the two that only scale.
    use_bias = normalization in ("rms_norm", "zero_centered_rms_norm")
    conv = part(keras.layers.Conv2D, name, filters=channels, kernel_size=1, use_bias=use_bias)
    return normalize(part, conv(x), normalization, f"{name}_norm")


def conv_block(
    part: Part,
    x: Tensor,
    channels: int,
    name: str,
    *,
    normalization: str,
    activation: str,
    separable: bool,
    kernel_size: int = 3,
) -> Tensor:
    """Convolution, normalization, activation, at the same height and width.

    With `separable`, a depthwise and a pointwise convolution, each normalized and activated
    (Howard et al. 2017, MobileNets).
    """
    part = prefixed(part, name)
    use_bias = normalization in ("rms_norm", "zero_centered_rms_norm")
    if separable:
        depthwise = part(
            keras.layers.DepthwiseConv2D,
            "depthwise",
            kernel_size=kernel_size,
            padding="same",
            use_bias=use_bias,
        )
        x = normalize(part, depthwise(x), normalization, "depthwise_norm")
        x = activate(part, x, activation, "depthwise_act")
        kernel_size = 1
    conv = part(
        keras.layers.Conv2D,
        "conv",
        filters=channels,
        kernel_size=kernel_size,
        padding="same",
        use_bias=use_bias,
    )
    x = normalize(part, conv(x), normalization, "norm")
    return activate(part, x, activation, "act")


def upsample(part: Part, x: Tensor, factor: int, name: str) -> Tensor:
    """Enlarge height and width `factor` times, bilinearly."""
    if factor == 1:
        return x
    return part(keras.layers.UpSampling2D, name, size=factor, interpolation="bilinear")(x)


def resize_to(part: Part, x: Tensor, size: tuple[int, int] | int, name: str) -> Tensor:
    """Bring height and width to `size`, or enlarge by it where it is a number.

    A size that is a whole multiple is reached by that factor, which every int8 runtime has.
    """
    if isinstance(size, int):
        return upsample(part, x, size, name)
    height, width = x.shape[1], x.shape[2]
    if (height, width) == tuple(size):
        return x
    if height and width and size[0] % height == 0 and size[0] // height * width == size[1]:
        return upsample(part, x, size[0] // height, name)
    return part(
        keras.layers.Resizing, name, height=size[0], width=size[1], interpolation="bilinear"
    )(x)
