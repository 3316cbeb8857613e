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

# What a task adds to, or changes in, the defaults.
_TASK_DEFAULT: dict[TaskType, dict[str, Any]] = {
    TaskType.DEPTH_ESTIMATION: {
        "min_depth": 0.1,
        "max_depth": 100.0,
        "depth_encoding": "log",
        "upsampling_factor": 4,
    },
}


class HeadConfiguration:
    """Presets: plain keyword dictionaries that `create_vision_head(task, **config)` accepts.

    Each call returns a new dictionary; change it freely.
    """

    @staticmethod
    def get_default_config(task: TaskType | str) -> dict[str, Any]:
        """Return a balanced head for training on a workstation."""
        return {**_DEFAULT, **_TASK_DEFAULT[TaskType.parse(task)]}

    @staticmethod
    def get_efficient_config(task: TaskType | str) -> dict[str, Any]:
        """Return a head that is cheap on a device, and that int8 loses little of."""
        return {**HeadConfiguration.get_default_config(task), **_EFFICIENT}

    @staticmethod
    def get_high_performance_config(task: TaskType | str) -> dict[str, Any]:
        """Return a wide head with attention, where accuracy counts and milliseconds do not."""
        return {**HeadConfiguration.get_default_config(task), **_HIGH_PERFORMANCE}

    @staticmethod
    def get_preset(preset: str, task: TaskType | str) -> dict[str, Any]:
        """Return a preset by its name: "default", "efficient" or "high_performance"."""
        from edgeheads.errors import unknown_name

        presets = {
            "default": HeadConfiguration.get_default_config,
            "efficient": HeadConfiguration.get_efficient_config,
            "high_performance": HeadConfiguration.get_high_performance_config,
        }
        if preset not in presets:
            raise unknown_name("head preset", preset, presets)
        return presets[preset](task)
