"""Backbones that declare their features: `create_backbone(name, input_shape, ...)`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.backbones.registry import BACKBONES, create_backbone

if TYPE_CHECKING:
    from edgeheads.backbones.base import Backbone, InputScaling

__all__ = ["BACKBONES", "Backbone", "InputScaling", "create_backbone"]

_HOMES = {"Backbone": "base", "InputScaling": "base"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeheads.backbones' has no attribute {name!r}")
    return getattr(import_module(f"edgeheads.backbones.{_HOMES[name]}"), name)
