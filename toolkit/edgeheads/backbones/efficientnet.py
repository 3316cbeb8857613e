"""EfficientNet B0 to B7 and EfficientNetV2-B0, from keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras

from edgeheads.backbones import applications
from edgeheads.backbones.applications import Application, last_layers
from edgeheads.backbones.base import Backbone, InputScaling
from edgeheads.backbones.graph import rebuild

__all__ = ["create"]

# The mean and standard deviation of ImageNet. Keras normalizes inside the graph: B0 to B7 by a
# Normalization whose stored variance is the standard deviation, and a second Rescaling that makes
# up for it (tensorflow issue 49930). Here one affine of the pixels stands for all of it.
_SCALING = InputScaling.standardized(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# The stage that ends each level (Tan & Le 2019, table 1; Tan & Le 2021, table 4).
_V1_STAGES = {"P1": 1, "P2": 2, "P3": 3, "P4": 5, "P5": 7}
_V2_STAGES = {"P1": 1, "P2": 2, "P3": 3, "P4": 5, "P5": 6}


def _build(
    network: Callable[..., keras.Model],
    input_shape: tuple[int, int, int],
    _width: float,
    source: str | None,
) -> keras.Model:
    return network(input_shape=input_shape, include_top=False, weights=source)


def _without_preprocessing(network: keras.Model) -> keras.Model:
    preprocessing = (keras.layers.Rescaling, keras.layers.Normalization)
    return rebuild(
        network,
        without={layer.name for layer in network.layers if isinstance(layer, preprocessing)},
    )


_NETWORKS = {
    f"efficientnet_b{size}": Application(
        partial(_build, getattr(keras.applications, f"EfficientNetB{size}")),
        partial(last_layers, _V1_STAGES),
        _SCALING,
        adapt=_without_preprocessing,
    )
    for size in range(8)
} | {
    "efficientnet_v2_b0": Application(
        partial(_build, partial(keras.applications.EfficientNetV2B0, include_preprocessing=False)),
        partial(last_layers, _V2_STAGES),
        _SCALING,
    )
}


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return an EfficientNet up to its last stage; the sizes B0 to B7 are its widths."""
    return applications.create(name, _NETWORKS[name], input_shape, width=width, weights=weights)
