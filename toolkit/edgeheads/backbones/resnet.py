"""ResNet50, from keras.applications."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeheads.backbones import applications
from edgeheads.backbones.applications import Application
from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.backbones.graph import rebuild

__all__ = ["create"]

# He et al. 2016, table 1: the last block of each stage.
_LEVELS = {
    "P1": "conv1_relu",
    "P2": "conv2_block3_out",
    "P3": "conv3_block4_out",
    "P4": "conv4_block6_out",
    "P5": "conv5_block3_out",
}


def _build(input_shape: tuple[int, int, int], _width: float, source: str | None) -> keras.Model:
    return keras.applications.ResNet50(input_shape=input_shape, include_top=False, weights=source)


def _take_rgb(network: keras.Model) -> keras.Model:
    """Turn the first kernel from B, G, R, as the network was trained in Caffe, to R, G, B.

    The convolution gets another name, so that a weights file tells which of the two it holds.
    """
    twin = rebuild(network, renamed={"conv1_conv": "conv1_rgb"})
    kernel, bias = twin.get_layer("conv1_rgb").get_weights()
    twin.get_layer("conv1_rgb").set_weights([kernel[:, :, ::-1], bias])
    return twin


_RESNET50 = Application(
    _build,
    _LEVELS,
    InputScaling(offset=(-123.68, -116.779, -103.939)),
    adapt=_take_rgb,
)


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return ResNet50, on R, G, B pixels less the mean of ImageNet."""
    return applications.create(name, _RESNET50, input_shape, width=width, weights=weights)
