"""The tasks. One file each; the table below is all that the pipeline knows of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.task_type import TaskType

if TYPE_CHECKING:
    from edgeheads.tasks.base import Task

__all__ = ["TASKS", "TaskType", "get_task"]

# task -> "module:class", imported on use.
TASKS = {
    TaskType.CLASSIFICATION: "classification:ClassificationTask",
    TaskType.DETECTION: "detection:DetectionTask",
    TaskType.SEGMENTATION: "segmentation:SegmentationTask",
    TaskType.DEPTH_ESTIMATION: "depth:DepthTask",
    TaskType.INSTANCE_SEGMENTATION: "instance_segmentation:InstanceSegmentationTask",
    TaskType.KEYPOINT_DETECTION: "keypoints:KeypointTask",
    TaskType.SURFACE_NORMALS: "normals:NormalsTask",
    TaskType.MULTI_TASK: "multi_task:MultiTask",
}


def get_task(task: TaskType | str, options: Mapping[str, Any] | None = None) -> Task:
    """Return the room of a task.

    Args:
        task: a `TaskType` or a name of one.
        options: the recipe's `head.options`.

    Raises:
        EdgeheadsError: the name is unknown, or the task has a head but no pipeline.
    """
    task = TaskType.parse(task)
    if task not in TASKS:
        raise EdgeheadsError(
            f"task {task.value!r} has a head but no pipeline; "
            f"these can be converted: {', '.join(one.value for one in TASKS)}"
        )
    module, _, name = TASKS[task].partition(":")
    room: Task = getattr(import_module(f"edgeheads.tasks.{module}"), name)(options)
    return room
