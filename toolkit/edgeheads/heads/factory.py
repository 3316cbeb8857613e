"""From a task to its head."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.tasks.task_type import TaskType

if TYPE_CHECKING:
    from edgeheads.heads.base import BaseVisionHead

__all__ = ["HEADS", "create_multi_task_head", "create_vision_head", "head_class"]

# task -> "module:class", imported on use.
HEADS = {
    TaskType.CLASSIFICATION: "classification:ClassificationHead",
    TaskType.DETECTION: "detection:DetectionHead",
    TaskType.SEGMENTATION: "segmentation:SegmentationHead",
    TaskType.DEPTH_ESTIMATION: "depth:DepthEstimationHead",
    TaskType.INSTANCE_SEGMENTATION: "instance_segmentation:InstanceSegmentationHead",
    TaskType.KEYPOINT_DETECTION: "keypoints:KeypointHead",
    TaskType.SURFACE_NORMALS: "normals:SurfaceNormalsHead",
    TaskType.ENHANCEMENT: "enhancement:EnhancementHead",
    TaskType.MULTI_TASK: "multi_task:MultiTaskHead",
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


def create_multi_task_head(
    task_configs: Mapping[TaskType | str, Mapping[str, Any]],
    shared_backbone_dim: int = 256,
    use_task_specific_attention: bool = True,
    **config: Any,
) -> BaseVisionHead:
    """Return one head for several tasks, which share a trunk.

    Args:
        task_configs: {task: options of its head}.
        shared_backbone_dim: channels of the trunk, its hidden_dim.
        use_task_specific_attention: give each task an attention branch of its own on the trunk.
        config: further options of the trunk; see `MultiTaskHead`.

    Raises:
        EdgeheadsError: see `create_vision_head`.
    """
    return create_vision_head(
        TaskType.MULTI_TASK,
        task_configs=task_configs,
        hidden_dim=shared_backbone_dim,
        use_attention=use_task_specific_attention,
        **config,
    )


def _options(cls: type) -> set[str]:
    names = {"name", "dtype", "trainable"}
    for base in cls.__mro__:
        if base.__module__.startswith("edgeheads."):
            names |= set(inspect.signature(base.__init__).parameters)  # type: ignore[misc]
    return names - {"self", "args", "kwargs"}
