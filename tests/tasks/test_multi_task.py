"""The multi-task room: every task gets its own, and a missing label teaches nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeheads.data.sample import LabelNames, Sample
from edgeheads.data.scenes.labels import NAMES
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks import TASKS, TaskType, get_task

SINGLE = [task for task in TASKS if task is not TaskType.MULTI_TASK]
SIZE = (32, 32)
SCENE = SyntheticScenes(1, SIZE)[0]


def room(*tasks: str):
    return get_task("multi-task", {"task_configs": {task: {} for task in tasks}})


def test_the_presets_tasks_are_the_default() -> None:
    assert list(get_task("multi").rooms) == ["detection", "segmentation", "depth"]


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        (["depth", "multi-task"], "none multi-task itself, received depth, multi-task"),
        (["depth", "mono_depth"], "each task once"),
        (["depht"], "did you mean depth"),
        (["enhancement"], "has a head but no pipeline"),
    ],
)
def test_tasks_that_cannot_be_together(tasks: list[str], text: str) -> None:
    with pytest.raises(EdgeheadsError, match=text):
        room(*tasks)


def test_names_have_their_task_in_front() -> None:
    task = room("segmentation", "depth")
    assert "depth/abs_rel" in {metric.name for metric in task.metrics}
    assert task.labels(NAMES) == tuple(f"segmentation/{name}" for name in NAMES.semantic)
    assert set(task.target(SCENE, SIZE, decoding(task))) == {"segmentation/semantic", "depth/depth"}


def test_augmentations_are_those_that_every_task_allows() -> None:
    single = [set(get_task(task).augmentations) for task in ("segmentation", "depth")]
    assert set(room("segmentation", "depth").augmentations) == single[0] & single[1]


def test_a_sample_needs_one_label() -> None:
    task = room("segmentation", "depth")
    task.check(replace(SCENE, depth=None))
    with pytest.raises(EdgeheadsError, match=r"label of no task: .*; .* has no depth map"):
        task.check(replace(SCENE, depth=None, semantic=None))


def decoding(task) -> dict:
    anchors = {"scales": [1.0], "ratios": [1.0], "cells": 2.0, "grids": [[4, 4], [2, 2]]}
    inner = {
        "anchors": anchors,
        "prototypes": [8, 8],
        "num_keypoints": 4,
        "num_classes": 6,
        "encoding": "log",
        "min_depth": 0.4,
        "max_depth": 10.0,
    }
    return {"tasks": {name: {"decoding": inner, "outputs": {}} for name in task.rooms}}


def outputs_like(task: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two images' outputs of a model as `decoding` describes it."""
    shapes = {
        "classification": {"logits": (3,)},
        "detection": {"classifications": (20, 3), "regressions": (20, 4)},
        "instance-segmentation": {
            "classifications": (20, 3),
            "regressions": (20, 4),
            "coefficients": (20, 5),
            "prototypes": (8, 8, 5),
        },
        "segmentation": {"logits": (*SIZE, 6)},
        "keypoints": {"heatmaps": (8, 8, 4), "offsets": (8, 8, 8)},
        "depth": {"depth": (*SIZE, 1), "confidence": (*SIZE, 1)},
        "normals": {"normals": (*SIZE, 3)},
    }
    outputs = {
        name: rng.normal(size=(2, *shape)).astype(np.float32)
        for name, shape in shapes[task].items()
    }
    if task == "depth":
        outputs = {name: np.abs(array) + 0.1 for name, array in outputs.items()}
    if task == "normals":
        outputs["normals"] /= np.linalg.norm(outputs["normals"], axis=-1, keepdims=True)
    return outputs


@pytest.mark.parametrize("name", [task.value for task in SINGLE])
def test_a_sample_without_a_tasks_label_does_not_change_its_loss(name: str) -> None:
    """Two images of which one is labelled: what is said of the other has no gradient."""
    keras = pytest.importorskip("keras")
    other = "depth" if name != "depth" else "normals"
    task = room(name, other)
    field = {
        "classification": "label",
        "detection": "objects",
        "instance-segmentation": "objects",
        "segmentation": "semantic",
        "keypoints": "keypoints",
        "depth": "depth",
        "normals": "normals",
    }[name]
    bare = replace(SCENE, **{field: None})
    targets = [task.target(sample, SIZE, decoding(task)) for sample in (SCENE, bare)]
    assert {key: a.shape for key, a in targets[0].items()} == {
        key: a.shape for key, a in targets[1].items()
    }
    batch = {
        key.removeprefix(f"{name}/"): np.stack([one[key] for one in targets])
        for key in targets[0]
        if key.startswith(f"{name}/")
    }
    rng = np.random.default_rng(0)
    outputs = outputs_like(name, rng)
    changed = {key: array.copy() for key, array in outputs.items()}
    for key, array in outputs_like(name, rng).items():
        changed[key][1] = array[1]
    loss, again = (
        float(
            keras.ops.convert_to_numpy(
                task.rooms[name].loss(batch, keras.tree.map_structure(keras.ops.array, one))
            )
        )
        for one in (outputs, changed)
    )
    assert np.isfinite(loss)
    assert again == pytest.approx(loss, rel=1e-6)


def test_each_task_is_scored_on_the_samples_that_have_its_label() -> None:
    task = room("segmentation", "depth")
    model = decoding(task)
    evaluator = task.evaluator(model)
    bare = replace(SCENE, semantic=None)
    prediction = {
        "segmentation/classes": SCENE.semantic,
        "segmentation/probabilities": np.eye(6, dtype=np.float32)[SCENE.semantic],
        "depth/depth": SCENE.depth * 1.1,
    }
    evaluator.update(prediction, SCENE)
    evaluator.update(prediction, bare)
    result = evaluator.result()
    assert result["metrics"]["depth/abs_rel"] == pytest.approx(0.1, rel=1e-4)
    assert result["metrics"]["segmentation/miou"] == 1.0
    assert result["counts"]["depth/images"] == 2
    assert result["counts"]["segmentation/images"] == 1


def test_no_sample_with_a_tasks_label_is_refused_by_name() -> None:
    task = room("depth", "normals")
    samples = [replace(SCENE, normals=None)]
    with pytest.raises(EdgeheadsError, match="no sample has a label of task 'normals'"):
        task.baseline(samples, NAMES)


def test_pictures_stand_below_each_other() -> None:
    task = room("depth", "normals")
    prediction = {"depth/depth": SCENE.depth, "normals/normals": SCENE.normals}
    picture = task.draw(SCENE.image, prediction)
    heights = [
        get_task(one).draw(SCENE.image, {one: prediction[f"{one}/{one}"]}).shape[0]
        for one in ("depth", "normals")
    ]
    assert picture.shape[0] == sum(heights) + 8
    label = task.draw_label(SCENE.image, replace(SCENE, depth=None), NAMES)
    assert label.shape == SCENE.image.shape


def test_unknown_labels_have_no_classes() -> None:
    with pytest.raises(EdgeheadsError, match="task 'keypoints' needs labelled keypoints"):
        room("keypoints", "depth").head_config({"task_configs": {}}, LabelNames())
    assert Sample(SCENE.image, "x").label is None
