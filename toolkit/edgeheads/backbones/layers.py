"""Blocks for the networks that are written here."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["conv_block", "round_channels"]

# A symbolic keras.KerasTensor.
Tensor = Any


def conv_block(
    x: Tensor,
    channels: int,
    kernel_size: int,
    name: str,
    *,
    strides: int = 1,
    activation: str | None,
    depthwise: bool = False,
) -> Tensor:
    """Convolution and batch normalization, then an activation where one is named.

    Args:
        x: map [B, H, W, C].
        channels: of the result; with `depthwise`, those of x.
        kernel_size: odd.
        name: the convolution's; the other layers' names begin with it.
        strides: 1, or 2 to halve height and width, rounded up.
        activation: a Keras activation; "relu6" becomes the layer that int8 kernels fuse.
        depthwise: one filter per channel.
    """
    options = {
        "kernel_size": kernel_size,
        "strides": strides,
        "padding": "same",
        "use_bias": False,
        "name": name,
    }
    if depthwise:
        x = keras.layers.DepthwiseConv2D(**options)(x)
    else:
        x = keras.layers.Conv2D(channels, **options)(x)
    x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
    if activation == "relu6":
        return keras.layers.ReLU(max_value=6.0, name=f"{name}_act")(x)
    return keras.layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def round_channels(channels: float, multiple: int = 8) -> int:
    """Return the multiple nearest to a number of channels, at least one multiple."""
    return max(multiple, int(channels / multiple + 0.5) * multiple)
