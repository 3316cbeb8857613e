"""From a task to its head."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.tasks.task_type import TaskType

if TYPE_CHECKING:
    from edgeheads.heads.base import BaseVisionHead

__all__ = ["HEADS", "create_vision_head", "head_class"]

# task -> "module:class", imported on use.
HEADS = {
    TaskType.DEPTH_ESTIMATION: "depth:DepthEstimationHead",
}


def head_class(task: TaskType | str) -> type[BaseVisionHead]:
    """Return the class of a task's head."""
    module, _, name = HEADS[TaskType.parse(task)].partition(":")
    found: type[BaseVisionHead] = getattr(import_module(f"edgeheads.heads.{module}"), name)
    return found


def create_vision_head(task: TaskType | str, **config: Any) -> BaseVisionHead:
    """Return a new head for a task.

    Args:
        task: a `TaskType`, or a name such as "depth".
        config: the head's keyword arguments; start from
            `HeadConfiguration.get_efficient_config(task)`.

    Raises:
        EdgeheadsError: an unknown task or option, or a value the head cannot work with.
    """
    cls = head_class(task)
    known = _options(cls)
    for key in config:
        if key not in known:
            raise EdgeheadsError(f"{cls.__name__}: {unknown_name('option', key, known)}")
    return cls(**config)


def _options(cls: type) -> set[str]:
    names = {"name", "dtype", "trainable"}
    for base in cls.__mro__:
        if base.__module__.startswith("edgeheads."):
            names |= set(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    return names - {"self", "args", "kwargs"}
