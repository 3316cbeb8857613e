"""NASNet-A Mobile, from keras.applications."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeheads.backbones import applications
from edgeheads.backbones.applications import Application
from edgeheads.backbones.base import Backbone, InputScaling

__all__ = ["create"]

# Zoph et al. 2018: the cell that ends each stage. Stride 2 is a stem without padding, whose map
# lies between the others' pixels (111 for 224): it is no level.
_LEVELS = {
    "P2": "reduction_concat_stem_1",
    "P3": "normal_concat_3",
    "P4": "normal_concat_8",
    "P5": "normal_concat_12",
}


def _build(input_shape: tuple[int, int, int], _width: float, source: str | None) -> keras.Model:
    if source == "imagenet" and input_shape != (224, 224, 3):
        # Keras refuses other sizes with these weights, although no weight depends on the size.
        network = _build(input_shape, _width, None)
        network.set_weights(_build((224, 224, 3), _width, source).get_weights())
        return network
    return keras.applications.NASNetMobile(
        input_shape=input_shape, include_top=False, weights=source
    )


_NASNET_MOBILE = Application(_build, _LEVELS, InputScaling.uniform(1 / 127.5, -1.0))


def create(
    name: str, input_shape: tuple[int, int, int], *, width: float, weights: str | Path | None
) -> Backbone:
    """Return NASNet-A (4 @ 1056)."""
    return applications.create(name, _NASNET_MOBILE, input_shape, width=width, weights=weights)
