"""Tensors that are larger than a device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras

from edgeheads.compression.lint.rule import Network, Rule

__all__ = ["RULES"]

_KILO = 1024


def _beyond_accelerator(network: Network) -> Iterator[tuple[str, str]]:
    limit = network.device.memory.accelerator_kb if network.device else 0
    if network.device is None or not limit:
        return
    for call in network.calls:
        if not isinstance(call.layer, keras.layers.Layer):
            continue
        held = {id(one): one for one in (*call.inputs, *call.outputs)}
        values = [_values(one) for one in held.values()]
        if None in values:
            continue  # an open shape is a finding of its own
        size_kb = sum(value for value in values if value is not None) / _KILO
        if size_kb > limit:
            yield (
                call.layer.name,
                f"inputs and outputs take {size_kb:.0f} kB in int8, "
                f"{network.device.title} has {limit} kB",
            )


def _values(tensor: Any) -> int | None:
    """Return how many values a tensor has for one image, which is its size in int8 in bytes."""
    shape = tensor.shape[1:]
    return None if None in shape else math.prod(shape)


RULES = (
    Rule(
        "large-tensor",
        "Tensors beyond the accelerator's memory",
        "warning",
        "what a layer reads and writes has to be on the chip at once: what does not fit is "
        "fetched from outside in pieces, again for each pass, and that is what the time goes to",
        "a smaller input, a stride in the first layer, or fewer channels where maps are large",
        _beyond_accelerator,
    ),
)
