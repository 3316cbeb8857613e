"""Vision heads for any backbone: create one with `create_vision_head`, or by its class.

A head is imported when first used; the configurations need neither Keras nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.factory import HEADS, create_vision_head

if TYPE_CHECKING:
    from edgeheads.heads.base import BaseVisionHead
    from edgeheads.heads.depth import DepthEstimationHead

__all__ = [
    "HEADS",
    "BaseVisionHead",
    "DepthEstimationHead",
    "HeadConfiguration",
    "create_vision_head",
]

_HOMES = {
    "BaseVisionHead": "base",
    "DepthEstimationHead": "depth",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeheads.heads' has no attribute {name!r}")
    return getattr(import_module(f"edgeheads.heads.{_HOMES[name]}"), name)
