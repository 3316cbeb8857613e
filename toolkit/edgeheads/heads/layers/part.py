"""The type of `BaseVisionHead.part`, and names for what it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Part", "Tensor", "pair", "prefixed"]

# A tensor of the active backend, or a symbolic keras.KerasTensor.
Tensor = Any

# part(layer class, name, **options) -> the head's layer of that name
Part = Callable[..., Any]


def prefixed(part: Part, prefix: str) -> Part:
    """Return a `part` whose names all begin with `prefix`."""

    def make(layer_class: Any, name: str, **config: Any) -> Any:
        return part(layer_class, f"{prefix}_{name}", **config)

    return make


def pair(values: Sequence[int] | None) -> tuple[int, int] | None:
    """Return two numbers as a tuple, also where a file had a list; None for None."""
    return (values[0], values[1]) if values else None
