"""MobileNetV2, from keras.applications."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.backbones.weights import load_weights
from edgeheads.errors import EdgeheadsError

__all__ = ["create"]

_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

# The linear bottlenecks that end each stage (Sandler et al. 2018, table 2): narrow, so that what
# a head adds on top is cheap.
_LEVELS = {
    "P1": "expanded_conv_project_BN",
    "P2": "block_2_add",
    "P3": "block_5_add",
    "P4": "block_12_add",
    "P5": "block_16_project_BN",
}


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return MobileNetV2 up to its last bottleneck; the 1280-channel layer above it is left off."""
    if width not in _WIDTHS:
        raise EdgeheadsError(f"{name}: width must be one of {_WIDTHS}, received {width}")
    network = load_weights(
        lambda source: keras.applications.MobileNetV2(
            input_shape=input_shape, alpha=width, include_top=False, weights=source
        ),
        weights,
    )
    backbone = Backbone.from_model(
        network,
        list(_LEVELS.values()),
        scaling=InputScaling.uniform(1 / 127.5, -1.0),
        name=name,
    )
    if list(backbone.pyramid) != list(_LEVELS):
        raise EdgeheadsError(
            f"{name}: input_shape {input_shape} is too small for levels {list(_LEVELS)}; "
            "use sides of at least 64"
        )
    return backbone
