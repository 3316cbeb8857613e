"""A pyramid that builds and runs in no time, for tests and first trials; see also `tiny_vit`."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeheads.backbones.applications import require_width
from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.backbones.layers import conv_block, round_channels
from edgeheads.backbones.weights import load_weights, require_imagenet

__all__ = ["create"]

_SCALING = InputScaling.uniform(1 / 127.5, -1.0)

_WIDTHS = (0.5, 1.0, 2.0)
# Of P1, P2, ... at width 1.
_CHANNELS = (8, 16, 24, 32, 48)


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return one depthwise separable convolution per level; `width` multiplies the channels."""
    require_width(name, width, _WIDTHS)
    if weights == "imagenet":
        require_imagenet(name, width, ())
    return load_weights(
        lambda _: _pyramid(name, input_shape, width), weights, lambda network: network
    )


def _pyramid(name: str, input_shape: tuple[int, int, int], width: float) -> Backbone:
    x = image = keras.Input(input_shape, name="image")
    outputs = {}
    for level, count in enumerate(_CHANNELS, start=1):
        channels, prefix = round_channels(count * width, 4), f"block_{level}"
        if level > 1:
            x = conv_block(
                x, 0, 3, f"{prefix}_depthwise", strides=2, activation="relu6", depthwise=True
            )
            x = conv_block(x, channels, 1, f"{prefix}_pointwise", activation="relu6")
        else:
            x = conv_block(x, channels, 3, f"{prefix}_conv", strides=2, activation="relu6")
        outputs[f"P{level}"] = x
    return Backbone(image, outputs, scaling=_SCALING, name=name)
