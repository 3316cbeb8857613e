"""Vision heads on mobile backbones, as small .tflite files proved on the device they are for.

The names below are imported when first used, so that `import edgeheads` needs neither Keras nor
TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeheads.backbones import Backbone, create_backbone
    from edgeheads.bundle import Bundle
    from edgeheads.errors import EdgeheadsError
    from edgeheads.heads import HeadConfiguration, create_multi_task_head, create_vision_head
    from edgeheads.model import build_model
    from edgeheads.recipe import Recipe
    from edgeheads.tasks.task_type import TaskType

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Bundle",
    "EdgeheadsError",
    "HeadConfiguration",
    "Recipe",
    "TaskType",
    "build_model",
    "create_backbone",
    "create_multi_task_head",
    "create_vision_head",
]

_HOMES = {
    "Backbone": "backbones",
    "Bundle": "bundle",
    "EdgeheadsError": "errors",
    "HeadConfiguration": "heads",
    "Recipe": "recipe",
    "TaskType": "tasks.task_type",
    "build_model": "model",
    "create_backbone": "backbones",
    "create_multi_task_head": "heads",
    "create_vision_head": "heads",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeheads' has no attribute {name!r}")
    return getattr(import_module(f"edgeheads.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
