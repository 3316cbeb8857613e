"""The presets' values, and the names of the tasks."""

from __future__ import annotations

import pytest
from head_cases import TASKS

from edgeheads.errors import EdgeheadsError
from edgeheads.heads import HeadConfiguration
from edgeheads.tasks.task_type import TaskType

_SINGLE = [task for task in TASKS if task is not TaskType.MULTI_TASK]


@pytest.mark.parametrize("task", TASKS)
def test_default_values_that_all_tasks_share(task):
    config = HeadConfiguration.get_default_config(task)
    shared = {
        "hidden_dim": 256,
        "dropout_rate": 0.1,
        "ffn_type": "mlp",
        "ffn_expansion_factor": 4,
        "normalization_type": "layer_norm",
        "activation_type": "gelu",
    }
    assert {key: config[key] for key in shared} == shared


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("detection", {"num_classes": 80, "num_anchors": 9, "bbox_dims": 4}),
        (
            "segmentation",
            {
                "num_classes": 21,
                "upsampling_factor": 4,
                "use_skip_connections": True,
                "attention_type": "cbam",
                "use_attention": True,
            },
        ),
        ("depth", {"min_depth": 0.1, "max_depth": 100.0, "depth_encoding": "log"}),
        (
            "classification",
            {
                "num_classes": 1000,
                "pooling": "average",
                "attention_type": "multi_head",
                "use_attention": True,
            },
        ),
        (
            "instance-segmentation",
            {
                "num_classes": 80,
                "num_instances": 100,
                "mask_size": (28, 28),
                "attention_type": "cbam",
                "use_attention": True,
            },
        ),
        ("keypoints", {"num_keypoints": 17}),
    ],
)
def test_default_values_of_a_task(task, values):
    config = HeadConfiguration.get_default_config(task)
    assert {key: config[key] for key in values} == values


@pytest.mark.parametrize("task", TASKS)
def test_efficient_and_high_performance_values(task):
    efficient = {
        "hidden_dim": 128,
        "dropout_rate": 0.0,
        "use_attention": False,
        "ffn_type": "glu",
        "ffn_expansion_factor": 2,
        "normalization_type": "batch_norm",
        "activation_type": "relu6",
        "separable": True,
    }
    strong = {
        "hidden_dim": 512,
        "dropout_rate": 0.2,
        "use_attention": True,
        "attention_type": "differential",
        "ffn_type": "swiglu",
        "ffn_expansion_factor": 8,
        "normalization_type": "zero_centered_rms_norm",
    }
    for values, config in (
        (efficient, HeadConfiguration.get_efficient_config(task)),
        (strong, HeadConfiguration.get_high_performance_config(task)),
    ):
        assert {key: config[key] for key in values} == values
        for inner in config.get("task_configs", {}).values():
            assert {key: inner[key] for key in values} == values


@pytest.mark.parametrize("task", TASKS)
def test_a_dictionary_is_the_callers_own(task):
    HeadConfiguration.get_default_config(task).clear()
    inner = HeadConfiguration.get_default_config("multi-task")["task_configs"]
    inner["depth"].clear()
    assert HeadConfiguration.get_default_config(task)
    assert HeadConfiguration.get_default_config("multi-task")["task_configs"]["depth"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("depth", TaskType.DEPTH_ESTIMATION),
        ("DEPTH_ESTIMATION", TaskType.DEPTH_ESTIMATION),
        ("seg", TaskType.SEGMENTATION),
        ("pose", TaskType.KEYPOINT_DETECTION),
        ("cls", TaskType.CLASSIFICATION),
        ("Det", TaskType.DETECTION),
        ("instance", TaskType.INSTANCE_SEGMENTATION),
        ("instance-segmentation", TaskType.INSTANCE_SEGMENTATION),
        ("instance_segmentation", TaskType.INSTANCE_SEGMENTATION),
        ("Instance Segmentation", TaskType.INSTANCE_SEGMENTATION),
        ("normals", TaskType.SURFACE_NORMALS),
        ("denoise", TaskType.ENHANCEMENT),
        ("sr", TaskType.ENHANCEMENT),
        ("super-resolution", TaskType.ENHANCEMENT),
        ("multi_task", TaskType.MULTI_TASK),
        *((task.value, task) for task in TASKS),
        *((task, task) for task in TASKS),
    ],
)
def test_friendly_names(name, task):
    assert TaskType.parse(name) is task


def test_an_unknown_task_lists_close_names():
    with pytest.raises(EdgeheadsError, match=r"unknown task 'detph'; did you mean.*depth"):
        TaskType.parse("detph")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_and_its_name_find_the_same_entry(task):
    assert {task.value: 1}[task] == 1
    assert {task: 1}[task.value] == 1


def test_every_task_has_a_head():
    assert set(TASKS) == set(TaskType)
