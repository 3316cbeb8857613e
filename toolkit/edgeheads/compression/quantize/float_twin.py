"""Models that compute in 16 bits, as the converter takes them."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["in_float32"]

_HALVES = ("float16", "bfloat16")


def in_float32(model: keras.Model) -> keras.Model:
    """Return the model, or, where layers of it compute in 16 bits, a copy that does in float32.

    The converter has no operations of 16-bit floats. Names, weights and shapes stay; inputs are
    float32.

    Args:
        model: functional or sequential; it is not changed.
    """
    if not any(layer.compute_dtype in _HALVES for layer in model._flatten_layers()):
        return model

    def in_full(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            # Of keras.ops, with no weights; those that name a dtype, name it by this word, too.
            config = layer.get_config()
            changes = {"dtype": "float32"} if config.get("dtype") in _HALVES else {}
            return type(layer).from_config({**config, **changes})
        changes = {"dtype": "float32"} if layer.compute_dtype in _HALVES else {}
        twin = type(layer).from_config({**layer.get_config(), **changes})
        twin.trainable = layer.trainable
        return twin

    twin = keras.models.clone_model(model, clone_function=in_full, recursive=True)
    twin.set_weights(model.get_weights())
    for layer in twin._flatten_layers():
        # Of Normalization, which computes with numbers that it makes of its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return twin
