"""Several tasks on one trunk."""

from __future__ import annotations

import numpy as np
import pytest
from head_cases import loss_and_gradients

from edgeheads.heads import MultiTaskHead, create_multi_task_head
from edgeheads.tasks.task_type import TaskType

_SMALL = {"hidden_dim": 8, "use_ffn": False}
_MAPS = [np.random.default_rng(0).normal(size=(2, s, s, 5)).astype("float32") for s in (8, 4)]


def _head(*tasks, **options):
    return create_multi_task_head(dict.fromkeys(tasks, _SMALL), 8, **options)


def test_outputs_are_found_by_name_and_by_task():
    outputs = _head(TaskType.SEGMENTATION, "depth")(_MAPS)
    assert list(outputs) == ["segmentation", "depth"]
    assert outputs[TaskType.SEGMENTATION]["masks"].shape == (2, 32, 32, 21)
    assert outputs["depth"]["depth"].shape == (2, 32, 32, 1)


@pytest.mark.parametrize(
    "tasks", [("cls",), ("cls", "seg"), ("instance", "pose", "normals", "denoise")], ids="-".join
)
def test_no_part_of_the_trunk_is_idle(tasks):
    head = _head(*tasks, use_task_specific_attention="cls" not in tasks)
    head.build([x.shape for x in _MAPS])
    _, gradients = loss_and_gradients(head, _MAPS)
    for variable, gradient in zip(head.trainable_variables, gradients, strict=True):
        assert np.abs(gradient).max() > 0, variable.path


def test_a_trunk_for_heads_without_skip_connections_projects_the_coarsest_map_only():
    config = {**_SMALL, "use_skip_connections": False}
    head = create_multi_task_head({"depth": config}, 8)
    head.build([x.shape for x in _MAPS])
    _, gradients = loss_and_gradients(head, _MAPS)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_the_trunk_is_shared_and_each_task_has_its_own_attention():
    def count(*tasks, attention):
        head = _head(*tasks, use_task_specific_attention=attention)
        head.build([x.shape for x in _MAPS])
        inner = sum(one.count_params() for one in head.heads.values())
        return head.count_params() - inner

    alone, both = (count(*tasks, attention=False) for tasks in (["seg"], ["seg", "depth"]))
    assert both == alone
    attention = count("seg", attention=True) - alone
    assert count("seg", "depth", attention=True) == alone + 2 * attention > alone


def test_edge_outputs_carry_the_task():
    head = _head("instance", "depth", name="multi")
    assert head.edge_outputs() == {
        "instance-segmentation_classifications": "multi_instance_segmentation_classifications",
        "instance-segmentation_regressions": "multi_instance_segmentation_regressions",
        "instance-segmentation_coefficients": "multi_instance_segmentation_coefficients",
        "instance-segmentation_prototypes": "multi_instance_segmentation_prototypes",
        "depth_code": "multi_depth_code",
        "depth_confidence_code": "multi_depth_confidence_code",
    }


def test_the_head_is_a_multi_task_head_with_the_arguments_of_its_function():
    head = create_multi_task_head({"depth": {}})
    assert isinstance(head, MultiTaskHead)
    assert (head.hidden_dim, head.use_attention) == (256, True)
