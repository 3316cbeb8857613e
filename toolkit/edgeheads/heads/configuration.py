"""Preset options for every task's head."""

from __future__ import annotations

from typing import Any

from edgeheads.tasks.task_type import TaskType

__all__ = ["HeadConfiguration"]

_DEFAULT: dict[str, Any] = {
    "hidden_dim": 256,
    "use_attention": False,
    "attention_type": "multi_head",
    "use_ffn": True,
    "ffn_type": "mlp",
    "ffn_expansion_factor": 4,
    "normalization_type": "layer_norm",
    "activation_type": "gelu",
    "dropout_rate": 0.1,
    "separable": False,
}

# Only what int8 kernels of every target run well: convolutions that batch norm folds into,
# ReLU6, additions, products with a sigmoid gate, bilinear resizing by whole factors.
_EFFICIENT: dict[str, Any] = {
    "hidden_dim": 128,
    "use_attention": False,
    "ffn_type": "glu",
    "ffn_expansion_factor": 2,
    "normalization_type": "batch_norm",
    "activation_type": "relu6",
    "dropout_rate": 0.0,
    "separable": True,
}

_HIGH_PERFORMANCE: dict[str, Any] = {
    "hidden_dim": 512,
    "use_attention": True,
    "attention_type": "differential",
    "ffn_type": "swiglu",
    "ffn_expansion_factor": 8,
    "normalization_type": "zero_centered_rms_norm",
    "dropout_rate": 0.2,
}

_CBAM: dict[str, Any] = {"use_attention": True, "attention_type": "cbam"}

# What a task adds to, or changes in, the defaults.
_TASK_DEFAULT: dict[TaskType, dict[str, Any]] = {
    TaskType.CLASSIFICATION: {
        "num_classes": 1000,
        "pooling": "average",
        "use_attention": True,
        "attention_type": "multi_head",
    },
    TaskType.DETECTION: {"num_classes": 80, "num_anchors": 9, "bbox_dims": 4},
    TaskType.SEGMENTATION: {
        "num_classes": 21,
        "upsampling_factor": 4,
        "use_skip_connections": True,
        **_CBAM,
    },
    TaskType.DEPTH_ESTIMATION: {
        "min_depth": 0.1,
        "max_depth": 100.0,
        "depth_encoding": "log",
        "upsampling_factor": 4,
    },
    TaskType.INSTANCE_SEGMENTATION: {
        "num_classes": 80,
        "num_anchors": 9,
        "bbox_dims": 4,
        "num_instances": 100,
        "mask_size": (28, 28),
        **_CBAM,
    },
    TaskType.KEYPOINT_DETECTION: {"num_keypoints": 17},
    TaskType.SURFACE_NORMALS: {"upsampling_factor": 4},
    TaskType.ENHANCEMENT: {"scale": 1, "residual": False},
    TaskType.MULTI_TASK: {"use_attention": True, "attention_type": "multi_head"},
}

# The tasks of the multi-task presets.
_TOGETHER = (TaskType.DETECTION, TaskType.SEGMENTATION, TaskType.DEPTH_ESTIMATION)


class HeadConfiguration:
    """Presets: plain keyword dictionaries that `create_vision_head(task, **config)` accepts.

    Each call returns a new dictionary; change it freely. That of the multi-task head holds one
    of the same kind for each of detection, segmentation and depth.
    """

    @staticmethod
    def get_default_config(task: TaskType | str) -> dict[str, Any]:
        """Return a balanced head for training on a workstation."""
        return _preset(TaskType.parse(task), {})

    @staticmethod
    def get_efficient_config(task: TaskType | str) -> dict[str, Any]:
        """Return a head that is cheap on a device, and that int8 loses little of."""
        return _preset(TaskType.parse(task), _EFFICIENT)

    @staticmethod
    def get_high_performance_config(task: TaskType | str) -> dict[str, Any]:
        """Return a wide head with attention, where accuracy counts and milliseconds do not."""
        return _preset(TaskType.parse(task), _HIGH_PERFORMANCE)


def _preset(task: TaskType, changes: dict[str, Any]) -> dict[str, Any]:
    config = {**_DEFAULT, **_TASK_DEFAULT[task], **changes}
    if task is TaskType.MULTI_TASK:
        config["task_configs"] = {one.value: _preset(one, changes) for one in _TOGETHER}
    return config
