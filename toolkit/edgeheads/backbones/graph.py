"""Copies of functional graphs with layers left out or renamed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras

__all__ = ["rebuild"]


def rebuild(
    network: keras.Model,
    *,
    without: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> keras.Model:
    """Return a copy of a functional model, weights included.

    Every layer of the copy is new and has one node: tools that walk the graph through
    `layer.output` find no trace of the layers that were left out.

    Args:
        network: of layers with one input each where they are left out.
        without: names of layers to leave out; their input goes on in their place.
        renamed: {old layer name: new layer name}.
    """
    renamed = renamed or {}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        name = renamed.get(layer.name, layer.name)
        return type(layer).from_config({**layer.get_config(), "name": name})

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in without else layer(*args, **kwargs)

    twin = keras.models.clone_model(network, clone_function=copy, call_function=call)
    for layer in network.layers:
        if layer.weights and layer.name not in without:
            twin.get_layer(renamed.get(layer.name, layer.name)).set_weights(layer.get_weights())
    return twin
