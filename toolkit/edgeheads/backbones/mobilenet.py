"""MobileNet, MobileNetV2 and MobileNetV3, from keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras

from edgeheads.backbones import applications
from edgeheads.backbones.applications import Application
from edgeheads.backbones.base import Backbone, InputScaling

__all__ = ["create"]

# All of them were trained on pixels in [-1, 1].
_SCALING = InputScaling.uniform(1 / 127.5, -1.0)

# Howard et al. 2017, table 1: the last block before each stride.
_V1_LEVELS = {
    "P1": "conv_pw_1_relu",
    "P2": "conv_pw_3_relu",
    "P3": "conv_pw_5_relu",
    "P4": "conv_pw_11_relu",
    "P5": "conv_pw_13_relu",
}

# The widened features that the next stage starts from, before they are strided (Sandler et al.
# 2018, table 2), and the 1280 channels at the end. ReLU6 bounds them to [0, 6], which int8 keeps
# well; the linear bottlenecks between them are narrower, with outliers that int8 does not. SSD and
# DeepLab (section 6 of the paper) tap them too.
_V2_LEVELS = {
    "P1": "block_1_expand_relu",
    "P2": "block_3_expand_relu",
    "P3": "block_6_expand_relu",
    "P4": "block_13_expand_relu",
    "P5": "out_relu",
}

# The linear bottleneck that ends each stage (Howard et al. 2019, tables 1 and 2): narrow, so that
# what a head adds on top is cheap. The layer above the last is left off.
_V3_LARGE_LEVELS = {
    "P1": "expanded_conv_add",
    "P2": "expanded_conv_2_add",
    "P3": "expanded_conv_5_add",
    "P4": "expanded_conv_11_add",
    "P5": "expanded_conv_14_add",
}


def _v3_small_levels(network: keras.Model) -> dict[str, str]:
    # The first block goes to stride 4 at once: stride 2 is the stem, whose activation Keras
    # leaves without a name of its own.
    names = [layer.name for layer in network.layers]
    return {
        "P1": names[names.index("conv_bn") + 1],
        "P2": "expanded_conv_project_bn",
        "P3": "expanded_conv_2_add",
        "P4": "expanded_conv_7_add",
        "P5": "expanded_conv_10_add",
    }


def _build(
    network: Callable[..., keras.Model],
    input_shape: tuple[int, int, int],
    width: float,
    source: str | None,
) -> keras.Model:
    return network(input_shape=input_shape, alpha=width, include_top=False, weights=source)


def _v3(network: Callable[..., keras.Model], *, minimalistic: bool) -> partial[keras.Model]:
    return partial(_build, partial(network, minimalistic=minimalistic, include_preprocessing=False))


_V3_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25)

# "minimalistic": without squeeze-and-excitation, hard-swish and 5x5 kernels, which int8 runs slow.
_NETWORKS = {
    "mobilenet": Application(
        partial(_build, keras.applications.MobileNet),
        _V1_LEVELS,
        _SCALING,
        widths=(0.25, 0.5, 0.75, 1.0),
        imagenet_widths=(0.25, 0.5, 0.75, 1.0),
    ),
    "mobilenet_v2": Application(
        partial(_build, keras.applications.MobileNetV2),
        _V2_LEVELS,
        _SCALING,
        widths=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
        imagenet_widths=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    ),
    "mobilenet_v3_small": Application(
        _v3(keras.applications.MobileNetV3Small, minimalistic=False),
        _v3_small_levels,
        _SCALING,
        widths=_V3_WIDTHS,
        imagenet_widths=(0.75, 1.0),
    ),
    "mobilenet_v3_small_minimalistic": Application(
        _v3(keras.applications.MobileNetV3Small, minimalistic=True),
        _v3_small_levels,
        _SCALING,
        widths=_V3_WIDTHS,
    ),
    "mobilenet_v3_large": Application(
        _v3(keras.applications.MobileNetV3Large, minimalistic=False),
        _V3_LARGE_LEVELS,
        _SCALING,
        widths=_V3_WIDTHS,
        imagenet_widths=(0.75, 1.0),
    ),
    "mobilenet_v3_large_minimalistic": Application(
        _v3(keras.applications.MobileNetV3Large, minimalistic=True),
        _V3_LARGE_LEVELS,
        _SCALING,
        widths=_V3_WIDTHS,
    ),
}


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return a MobileNet; `width` multiplies the channels of every layer (the papers' alpha)."""
    return applications.create(name, _NETWORKS[name], input_shape, width=width, weights=weights)
