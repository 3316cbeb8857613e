"""Building the smaller model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeheads.compression.graph import calls, copy_layer, rewrite
from edgeheads.compression.prune.channels import Channels, Slot
from edgeheads.errors import EdgeheadsError

__all__ = ["remove_channels"]

# Options that count a layer's output channels.
_COUNTS = ("filters", "units")


def remove_channels(channels: Channels, removed: NDArray[np.bool_]) -> keras.Model:
    """Return a copy of the model without some units of its channels.

    Where the removed channels were zero, it computes exactly the same.

    Args:
        channels: of the model.
        removed: [channels.count], whether each unit goes.

    Raises:
        EdgeheadsError: a layer that cannot be copied.
    """
    slots: dict[str, list[Slot]] = {}
    for slot in channels.slots:
        slots.setdefault(slot.layer, []).append(slot)
    reshaped = _reshaped(channels, removed)
    copies: dict[str, keras.layers.Layer] = {}

    def visit(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in copies:
            changes: dict[str, Any] = _changes(layer, slots.get(layer.name, []), channels, removed)
            if layer.name in reshaped:
                changes = {"target_shape": reshaped[layer.name]}
            copies[layer.name] = _copy(layer, changes)
        return copies[layer.name](*args, **kwargs)

    twin = rewrite(channels.model, visit)
    for layer in channels.model.layers:
        if layer.name in slots:
            weights = list(layer.get_weights())
            for slot in slots[layer.name]:
                weights[slot.weight] = np.compress(
                    channels.kept(slot, removed), weights[slot.weight], slot.axis
                )
            copies[layer.name].set_weights(weights)
    return twin


def _changes(
    layer: Any, slots: list[Slot], channels: Channels, removed: NDArray[np.bool_]
) -> dict[str, int]:
    made = next((slot for slot in slots if slot.makes), None)
    option = next((name for name in _COUNTS if hasattr(layer, name)), None)
    if made is None or option is None:
        return {}
    before, after = len(made.labels), int(channels.kept(made, removed).sum())
    if after == before:
        return {}
    changes = {option: after}
    if getattr(layer, "groups", 1) > 1:
        changes["groups"] = layer.groups * after // before
    return changes


def _reshaped(channels: Channels, removed: NDArray[np.bool_]) -> dict[str, tuple[int, ...]]:
    """Return {layer: target shape} of the Reshape layers that channels go through."""
    found = {}
    for call in calls(channels.model):
        if isinstance(call.layer, keras.layers.Reshape):
            kept, target = channels.kept_of(call.outputs[0], removed), call.layer.target_shape
            if not kept.all() and target[-1] != -1:
                found[call.layer.name] = (*target[:-1], int(kept.sum()))
    return found


def _copy(layer: keras.layers.Layer, changes: dict[str, Any]) -> keras.layers.Layer:
    try:
        return copy_layer(layer, **changes)
    except Exception as error:  # whatever the constructor of a foreign layer raises
        raise EdgeheadsError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied from its own "
            f"get_config ({' '.join(str(error).split())[:150]}); give the class a get_config that "
            "returns every argument of its constructor"
        ) from None
