"""The tasks, and the names people call them by."""

from __future__ import annotations

from enum import Enum

from edgeheads.errors import unknown_name

__all__ = ["TaskType"]


class TaskType(str, Enum):
    """What a head predicts. The value is the name used in recipes and on the command line.

    A member is equal to its value and hashes like it, so either finds a task in a dictionary.
    """

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    DEPTH_ESTIMATION = "depth"
    INSTANCE_SEGMENTATION = "instance-segmentation"
    KEYPOINT_DETECTION = "keypoints"
    SURFACE_NORMALS = "normals"
    ENHANCEMENT = "enhancement"
    MULTI_TASK = "multi-task"

    # Enum hashes by the member's name, which would break `outputs[TaskType.X]`.
    __hash__ = str.__hash__

    @classmethod
    def parse(cls, name: TaskType | str) -> TaskType:
        """Return the task for its value, its enum name or a common synonym.

        Case does not matter, and a hyphen, an underscore and a space are the same.

        Raises:
            EdgeheadsError: no task is called that; the text lists close matches.
        """
        if isinstance(name, cls):
            return name
        by_name = {task.name.lower(): task for task in cls} | _SYNONYMS
        by_name |= {_key(task.value): task for task in cls}
        if _key(name) not in by_name:
            raise unknown_name("task", str(name), by_name)
        return by_name[_key(name)]


def _key(name: str) -> str:
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")


_SYNONYMS = {
    "classify": TaskType.CLASSIFICATION,
    "classifier": TaskType.CLASSIFICATION,
    "image_classification": TaskType.CLASSIFICATION,
    "cls": TaskType.CLASSIFICATION,
    "detect": TaskType.DETECTION,
    "detector": TaskType.DETECTION,
    "object_detection": TaskType.DETECTION,
    "det": TaskType.DETECTION,
    "segment": TaskType.SEGMENTATION,
    "semantic_segmentation": TaskType.SEGMENTATION,
    "semantic": TaskType.SEGMENTATION,
    "seg": TaskType.SEGMENTATION,
    "mono_depth": TaskType.DEPTH_ESTIMATION,
    "monocular_depth": TaskType.DEPTH_ESTIMATION,
    "instance": TaskType.INSTANCE_SEGMENTATION,
    "instances": TaskType.INSTANCE_SEGMENTATION,
    "instance_seg": TaskType.INSTANCE_SEGMENTATION,
    "keypoint": TaskType.KEYPOINT_DETECTION,
    "kpts": TaskType.KEYPOINT_DETECTION,
    "landmarks": TaskType.KEYPOINT_DETECTION,
    "pose": TaskType.KEYPOINT_DETECTION,
    "pose_estimation": TaskType.KEYPOINT_DETECTION,
    "normal": TaskType.SURFACE_NORMALS,
    "surface_normal": TaskType.SURFACE_NORMALS,
    "denoise": TaskType.ENHANCEMENT,
    "denoising": TaskType.ENHANCEMENT,
    "enhance": TaskType.ENHANCEMENT,
    "restoration": TaskType.ENHANCEMENT,
    "sr": TaskType.ENHANCEMENT,
    "super_resolution": TaskType.ENHANCEMENT,
    "multi": TaskType.MULTI_TASK,
    "multitask": TaskType.MULTI_TASK,
}
